//! The allocator of the command: an arena that grows and gives nothing back.
//!
//! A verb lives for a few milliseconds and allocates some hundred kilobytes. The general allocator of the static C
//! library maps and unmaps single pages for that, each with a system call and a page fault of several
//! microseconds; the arena takes its chunks with their pages already there. Only the last block can be freed or
//! grown in place. What goes beyond [`MOST_CHUNKS`] - a verb that stays, such as `events` - comes from the general
//! allocator, so the arena cannot leak without bound.

mod sys;

pub use sys::Arena;

/// Size of a chunk: what a small verb needs in all.
const CHUNK_BYTES: usize = 64 << 10;

/// How many chunks the arena takes from the kernel at most.
const MOST_CHUNKS: usize = 12;
