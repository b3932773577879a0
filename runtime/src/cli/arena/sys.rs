//! The arena's unsafe half: a `GlobalAlloc`.

use super::{CHUNK_BYTES, MOST_CHUNKS};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// The allocator; see the module above.
pub struct Arena {
    locked: AtomicBool,
    state: UnsafeCell<State>,
}

struct State {
    /// Bounds of the current chunk and the first free byte in it.
    start: usize,
    next: usize,
    end: usize,
    /// Address ranges of the chunks, in the order in which they were made; zeroes where there is none yet.
    chunks: [(usize, usize); MOST_CHUNKS],
}

// SAFETY: `state` is only touched between `lock` and the store that releases it.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena without a chunk.
    pub const fn new() -> Arena {
        Arena {
            locked: AtomicBool::new(false),
            state: UnsafeCell::new(State { start: 0, next: 0, end: 0, chunks: [(0, 0); MOST_CHUNKS] }),
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        // The command has a second thread only for an instant (network devices), so the wait is never long.
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::hint::spin_loop();
        }
        // SAFETY: the lock is held, so this is the only reference.
        let result = f(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        result
    }
}

impl State {
    fn owns(&self, address: usize) -> bool {
        self.chunks.iter().any(|&(start, end)| (start..end).contains(&address))
    }

    fn take(&mut self, layout: Layout) -> Option<usize> {
        let at = self.next.next_multiple_of(layout.align());
        let end = at.checked_add(layout.size())?;
        if self.start != 0 && end <= self.end {
            self.next = end;
            return Some(at);
        }
        // Large blocks would waste a chunk.
        if layout.size() > CHUNK_BYTES / 2 {
            return None;
        }
        let slot = self.chunks.iter_mut().find(|chunk| chunk.0 == 0)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address the kernel chooses.
        let map = unsafe { libc::mmap(ptr::null_mut(), CHUNK_BYTES, protection, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return None;
        }
        let start = map as usize;
        *slot = (start, start + CHUNK_BYTES);
        (self.start, self.next, self.end) = (start, start, start + CHUNK_BYTES);
        self.take(layout)
    }
}

// SAFETY: blocks are disjoint parts of private mappings that are never unmapped, or come from the general
// allocator, which also gets back exactly those.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.with(|state| state.take(layout)) {
            Some(address) => address as *mut u8,
            // SAFETY: the caller's contract is the same.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let address = block as usize;
        let ours = self.with(|state| {
            if address + layout.size() == state.next && address >= state.start {
                state.next = address;
            }
            state.owns(address)
        });
        if !ours {
            // SAFETY: the block is in none of the chunks, so it came from there.
            unsafe { System.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let address = block as usize;
        let (ours, grown) = self.with(|state| {
            let last = address + layout.size() == state.next && address >= state.start;
            let fits = address.checked_add(new_size).is_some_and(|end| end <= state.end);
            if last && fits {
                state.next = address + new_size;
            }
            (state.owns(address), last && fits)
        });
        if grown || (ours && new_size <= layout.size()) {
            return block;
        }
        if !ours {
            // SAFETY: the block is in none of the chunks, so it came from there.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        // SAFETY: the caller's contract: the size is not zero and does not overflow with this alignment.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a layout")
    }

    #[test]
    fn blocks_are_disjoint_and_the_last_one_can_grow() {
        let arena = Arena::new();
        // SAFETY: the blocks are used within their layouts and given back with them.
        unsafe {
            let a = arena.alloc(layout(100));
            let b = arena.alloc(layout(100));
            a.write_bytes(1, 100);
            b.write_bytes(2, 100);
            let grown = arena.realloc(b, layout(100), 1000);
            assert_eq!(grown, b);
            grown.add(100).write_bytes(3, 900);
            let moved = arena.realloc(a, layout(100), 200);
            assert_ne!(moved, a);
            assert_eq!((*a, *moved.add(99), *b.add(99), *b.add(100)), (1, 1, 2, 3));
            arena.dealloc(moved, layout(200));
            assert_eq!(arena.alloc(layout(200)), moved);
        }
    }

    #[test]
    fn beyond_the_limit_the_general_allocator_serves() {
        let arena = Arena::new();
        let mut blocks = Vec::new();
        for n in 0..200 {
            // SAFETY: the block is used within its layout.
            unsafe {
                let block = arena.alloc(layout(16 << 10));
                block.write_bytes(n as u8, 16 << 10);
                blocks.push(block);
            }
        }
        assert!(arena.with(|state| state.chunks.iter().all(|chunk| chunk.0 != 0)));
        for (n, block) in blocks.into_iter().enumerate() {
            // SAFETY: as above; each block is given back once.
            unsafe {
                assert_eq!(*block.add((16 << 10) - 1), n as u8);
                arena.dealloc(block, layout(16 << 10));
            }
        }
    }
}
