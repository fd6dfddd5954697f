"""Who borrows: members, and for how long they are."""

from django.db import models


class Member(models.Model):
    """Somebody with a card."""

    card = models.CharField(max_length=20, unique=True)
    name = models.CharField(max_length=200)
    email = models.EmailField(blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self):
        return f"{self.name} ({self.card})"


class Membership(models.Model):
    """A year of being a member; the fee that was paid for it."""

    member = models.ForeignKey(Member, on_delete=models.CASCADE, related_name="memberships")
    begins = models.DateField()
    ends = models.DateField()
    paid = models.DecimalField(max_digits=6, decimal_places=2, default=0)

    class Meta:
        ordering = ("-begins",)
        constraints = [
            models.CheckConstraint(condition=models.Q(ends__gt=models.F("begins")), name="membership_ends_later"),
        ]

    def __str__(self):
        return f"{self.member} until {self.ends}"
