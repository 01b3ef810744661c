"""The data set doctor: what there is, what the anchors make of it, what is there twice, what looks wrong."""
