//! The child half of dhow-runtime.
#![no_std]
