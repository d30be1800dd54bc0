"""How good the annotations are, live: agreement, reliability, what sways each person, progress and its forecast.

    from plumbline.preferences.quality import Quality
    report = Quality(store, project="support").report()
    report.agreement.pairwise.value, report.agreement.pairwise.low, report.agreement.pairwise.high

A figure that cannot be given says why (`Figure.why`); it is never shown as 1.0 or nan.
"""

from plumbline.preferences.quality.figures import Figure
from plumbline.preferences.quality.report import PersonQuality, Quality, QualityReport

__all__ = ["Figure", "PersonQuality", "Quality", "QualityReport"]
