// The quiz on the guideline: digits choose, Enter hands in; what has no answer yet is pointed at.

export class Quiz {
  constructor(form, t) {
    Object.assign(this, { form, t });
    this.questions = [...form.querySelectorAll(".pl-quiz-question")];
    this.missing = form.querySelector("[data-pl=quiz-missing]");
    form.addEventListener("change", () => (this.missing.textContent = ""));
  }

  /** What the annotator chose, for the server; null, and the place is shown, where an answer is missing. */
  answer() {
    const open = this.questions.find((question) => !this.chosen(question).length);
    this.missing.textContent = open ? this.t("quiz_missing", { number: open.dataset.question }) : "";
    if (open) {
      open.scrollIntoView({ block: "center" });
      open.querySelector("input").focus({ preventScroll: true });
      return null;
    }
    const { shown, number } = this.form.dataset;
    return { shown, number: Number(number), chosen: this.questions.map((question) => this.chosen(question)) };
  }

  /** A digit chooses in the question that has the focus, or in the first one without an answer. */
  digit(number) {
    const focused = document.activeElement?.closest?.(".pl-quiz-question");
    const question = focused ?? this.questions.find((one) => !this.chosen(one).length);
    const input = question?.querySelectorAll("input")[number - 1];
    if (!input) return;
    input.click();
    const next = input.type === "radio" ? this.questions[this.questions.indexOf(question) + 1] : null;
    const target = next?.querySelector("input:checked") ?? next?.querySelector("input") ?? input;
    target.focus({ preventScroll: true });
    target.closest(".pl-quiz-question").scrollIntoView({ block: "nearest" });
  }

  chosen(question) {
    return [...question.querySelectorAll("input:checked")].map((input) => Number(input.value));
  }
}
