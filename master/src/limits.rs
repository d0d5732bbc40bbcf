//! Every limit and deadline of the master, by name.
