//! The real programs that dhow-runtime is a drop-in for, each started from the distribution's package.
