"""No two books have the same address."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0003_fill_slugs")]

    operations = [
        migrations.AlterField("book", "slug", models.SlugField(max_length=120, unique=True)),
    ]
