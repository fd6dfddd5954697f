"""What is out: loans, what is reserved, what is owed, and the figures of each day."""

from django.db import models
from django.utils import timezone

from catalogue.models import Book, Copy
from members.models import Member


class Loan(models.Model):
    """A copy in a member's hands; `returned` is empty until it is back."""

    copy = models.ForeignKey(Copy, on_delete=models.PROTECT, related_name="loans")
    member = models.ForeignKey(Member, on_delete=models.PROTECT, related_name="loans")
    began = models.DateTimeField(default=timezone.now)
    due = models.DateTimeField()
    returned = models.DateTimeField(null=True, blank=True)
    reminded = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("due",)
        constraints = [
            models.UniqueConstraint(
                fields=["copy"], condition=models.Q(returned__isnull=True), name="one_open_loan_of_a_copy"
            ),
        ]

    def __str__(self):
        return f"{self.copy} to {self.member}"


class Reservation(models.Model):
    """A member waits for a book."""

    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="reservations")
    member = models.ForeignKey(Member, on_delete=models.CASCADE, related_name="reservations")
    made = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("made",)
        constraints = [models.UniqueConstraint(fields=["book", "member"], name="one_reservation_of_a_book")]

    def __str__(self):
        return f"{self.member} waits for {self.book}"


class Fine(models.Model):
    """What a late return costs."""

    loan = models.OneToOneField(Loan, on_delete=models.CASCADE, related_name="fine")
    amount = models.DecimalField(max_digits=6, decimal_places=2)
    paid = models.BooleanField(default=False)

    def __str__(self):
        return f"{self.amount} for {self.loan}"


class DailyFigures(models.Model):
    """What a task has counted on a day, and how often it did."""

    day = models.DateField(unique=True)
    books = models.PositiveIntegerField()
    copies = models.PositiveIntegerField()
    out = models.PositiveIntegerField()
    overdue = models.PositiveIntegerField()
    counted = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name_plural = "daily figures"
        ordering = ("-day",)

    def __str__(self):
        return f"{self.day}: {self.out} of {self.copies} copies out"
