//! The developer commands, one module each. (`setup` has a folder of its own.)

pub mod bench;
pub mod build;
pub mod demo;
pub mod lab;
pub mod lint;
pub mod package;
pub mod test;
