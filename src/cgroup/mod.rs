//! Cgroup v2: the tree, its limits, and what the kernel's files say.
//!
//! [`tree`] makes the branches and the groups, [`group`] is one group with every descriptor open that the exhaustion
//! path needs, [`limits`] and [`settings`] set limits and read them back, [`parse`] turns bytes into numbers.
//! Everything takes a root folder, so that a folder of captured files serves as well as a real mount; whether a folder
//! is a real cgroup2 is a question of its own ([`capabilities::is_cgroup2`]).

pub mod capabilities;
pub mod group;
pub mod limits;
pub mod lowering;
pub mod member;
pub mod parse;
pub mod place;
pub mod release;
pub mod settings;
pub mod tree;

mod delegate;
mod file;
