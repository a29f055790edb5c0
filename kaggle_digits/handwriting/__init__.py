"""Your own handwriting: from photographs and scans to digits."""
