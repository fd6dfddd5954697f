"""The page of figures."""

from django.views.generic import ListView

from loans.models import DailyFigures


class Figures(ListView):
    """What was counted, newest day first."""

    model = DailyFigures
    paginate_by = 31
