//! Builds the workspace's test programs and finds them through cargo's messages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::error::Error;
use crate::options::TestSelection;
use crate::session::Command;

/// Builds the tests selected and returns a command for each, with these arguments, in the
/// surroundings that `cargo test` would give it.
///
/// # Errors
/// [`Error::Failed`] when cargo fails or has built no program for a test selected.
pub fn test_commands(selection: &TestSelection, arguments: &[OsString]) -> Result<Vec<Command>, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command
        .args(["test", "--no-run", "--message-format=json-render-diagnostics", "--package"])
        .arg(&selection.package)
        .stderr(Stdio::inherit());
    for test in &selection.tests {
        command.arg("--test").arg(test);
    }
    if selection.lib {
        command.arg("--lib");
    }
    let output = command.output().map_err(|source| Error::Start { program: "cargo test".into(), source })?;
    if !output.status.success() {
        return Err(Error::Failed { program: "cargo test --no-run".into(), why: output.status.to_string() });
    }
    let found = programs(&String::from_utf8_lossy(&output.stdout));
    if found.is_empty() {
        return Err(Error::Failed {
            program: "cargo test --no-run".into(),
            why: "it named no test program".into(),
        });
    }
    Ok(found
        .into_iter()
        .map(|program| Command {
            program: program.executable.into(),
            arguments: arguments.to_vec(),
            env: vec![("CARGO_MANIFEST_DIR".into(), program.package.clone().into())],
            directory: Some(program.package),
        })
        .collect())
}

#[derive(Debug, PartialEq, Eq)]
struct TestProgram {
    executable: PathBuf,
    /// The directory of the package's manifest.
    package: PathBuf,
}

/// The test programs in the lines of `--message-format=json`.
fn programs(messages: &str) -> Vec<TestProgram> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["profile"]["test"] == true)
        .filter_map(|message| {
            Some(TestProgram {
                executable: message["executable"].as_str()?.into(),
                package: Path::new(message["manifest_path"].as_str()?).parent()?.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_count() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","profile":{"test":false},"executable":"/t/vm"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","profile":{"test":true},"executable":"/t/deps/cgroup-1"}"#,
            "\nnot a message\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/x/Cargo.toml","profile":{"test":true},"executable":null}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(
            programs(messages),
            [TestProgram { executable: "/t/deps/cgroup-1".into(), package: "/w/tests".into() }]
        );
    }
}
