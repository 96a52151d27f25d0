"""Classification of labelled texts and sequences by a linear head on the trunk of a trained model."""
