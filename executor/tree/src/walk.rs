//! Every name below a directory, sorted and without recursion.
