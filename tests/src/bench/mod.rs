//! The parts of `bench-runtime`: what is measured ([`subject`]), in what surroundings ([`worker`]), with which
//! container ([`bundle`]), how its work is counted ([`trace`]), and what is said about it ([`report`]).

pub mod bundle;
pub mod report;
pub mod subject;
pub mod sys;
pub mod trace;
pub mod worker;
