//! Frames as relays send them.
