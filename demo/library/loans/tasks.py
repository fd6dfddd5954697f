"""What happens by the clock."""

from celery import shared_task
from django.db import transaction
from django.utils import timezone

from catalogue.models import Book, Copy
from loans.models import DailyFigures, Loan


@shared_task(name="loans.count_day")
def count_day():
    """Counts what the library has and what is out, into the row of the day."""
    now = timezone.now()
    out = Loan.objects.filter(returned__isnull=True)
    with transaction.atomic():
        counted = DailyFigures.objects.filter(day=now.date()).values_list("counted", flat=True).first() or 0
        figures = {
            "books": Book.objects.count(),
            "copies": Copy.objects.count(),
            "out": out.count(),
            "overdue": out.filter(due__lt=now).count(),
            "counted": counted + 1,
        }
        DailyFigures.objects.update_or_create(day=now.date(), defaults=figures)


@shared_task(name="loans.remind")
def remind():
    """Notes on each loan that is overdue that its member was reminded; returns how many."""
    now = timezone.now()
    return Loan.objects.filter(returned__isnull=True, due__lt=now, reminded__isnull=True).update(reminded=now)
