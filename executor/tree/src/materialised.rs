//! A tree written out in full, and what a step changed in it, for where no overlay can be had.
