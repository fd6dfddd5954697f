"""The figures of each day, and when members were reminded."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("loans", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="DailyFigures",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField(unique=True)),
                ("books", models.PositiveIntegerField()),
                ("copies", models.PositiveIntegerField()),
                ("out", models.PositiveIntegerField()),
                ("overdue", models.PositiveIntegerField()),
                ("counted", models.PositiveIntegerField(default=0)),
            ],
            options={
                "verbose_name_plural": "daily figures",
                "ordering": ("-day",),
            },
        ),
        migrations.AddField(
            model_name="loan",
            name="reminded",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
