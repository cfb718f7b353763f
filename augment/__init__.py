"""How augment_data.py makes new problems of old ones: rephrase.py (text), pictures.py (images), page.py (text to image)
and avoid.py (nothing that stands in an evaluation set)."""
