//! The child half of dhow-runtime: what happens between clone and execve.
//!
//! A [`Program`] is a list of [`Step`]s made by the parent; [`run`] executes it with system calls only. The
//! package is `no_std` without `alloc`, so that an allocation, a lock or a log call after clone does not
//! compile: the child of a threaded program may rely on none of them.
//!
//! Strings are offsets into one arena ([`Str`]), descriptors are indices into a table ([`Fd`]), so a step is
//! plain data: the same value is what `compile` makes, what `--plan` prints and what the child executes.
//! A step that fails is reported to the parent as a [`Message::Failed`] with its index, the system call and
//! errno; the parent still has the plan and turns that into words.
#![no_std]

mod copy;
mod hook;
mod line;
mod passwd;
mod privileges;
mod pty;
mod rootfs;
mod run;
mod step;
mod streams;
mod sys;
mod wire;

pub use run::{Clone3, clone_process, run};
pub use step::{Create, Fd, HOME_BYTES, List, Namespace, Op, Pair, Program, Step, Str, VectorRef};
pub use sys::{Fault, attr, namespace_flag, propagation};
pub use wire::{ATTACHED, GO, Kind, MESSAGE_BYTES, Message};
