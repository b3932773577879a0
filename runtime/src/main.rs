//! The command line `dhow-runtime`: a drop-in for runc's.
mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
