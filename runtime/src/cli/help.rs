//! Help, version and manual page, made from the tables of [`verbs`](super::verbs).

use super::args::Flag;
use super::error::message;
use super::log::Log;
use super::output;
use super::verbs::{GLOBALS, VERBS, Verb};

/// The version of the runtime specification that is implemented.
const SPEC_VERSION: &str = "1.3.0";

/// Prints the help of `verb`, or of the program. The result is an exit code.
pub fn print(verb: Option<&Verb>, log: &Log) -> u8 {
    show(&verb.map_or_else(overview, of_verb), log)
}

/// Prints the version. The result is an exit code.
pub fn print_version(log: &Log) -> u8 {
    show(&version(), log)
}

fn show(text: &str, log: &Log) -> u8 {
    match output::print(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) => {
            log.error(&message(&error));
            1
        }
    }
}

/// In the form of runc, which engines parse: the first line is `NAME version VERSION`, and no other has that word.
fn version() -> String {
    format!("dhow-runtime version {}\nspec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

fn overview() -> String {
    let mut out = String::from(
        "dhow-runtime - run containers after the OCI runtime specification\n\n\
         Usage: dhow-runtime [FLAG...] COMMAND [FLAG...] [OPERAND...]\n\n\
         A bundle is a directory with a config.json, which describes the container, and usually its root\n\
         filesystem. To run one: write the configuration with `dhow-runtime spec`, put a root filesystem beside\n\
         it, and run it with `dhow-runtime run NAME`.\n\n\
         Commands:\n",
    );
    for verb in VERBS {
        out.push_str(&format!("  {:<12}{}\n", verb.name, verb.about));
    }
    out.push_str(&format!("  {:<12}{}\n", "help", "print help, of a command if one is named"));
    out.push_str("\nFlags before the command:\n");
    push_flags(&mut out, GLOBALS);
    out.push_str(
        "\nState is below /run/dhow/runtime, or $XDG_RUNTIME_DIR/dhow/runtime of an ordinary user.\n\
         Exit codes: that of the process for `run` and `exec`; 255 when `exec` fails, 3 for an unknown command,\n\
         1 for any other failure.\n",
    );
    out
}

fn of_verb(verb: &Verb) -> String {
    let usage = [verb.name, if verb.flags.is_empty() { "" } else { "[FLAG...]" }, verb.operands.usage];
    let usage = usage.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let mut out = format!("dhow-runtime {} - {}\n\nUsage: dhow-runtime {usage}\n", verb.name, verb.about);
    if verb.name == "exec" {
        out.push_str("       dhow-runtime exec [FLAG...] --process FILE CONTAINER\n");
    }
    if !verb.details.is_empty() {
        out.push_str(&format!("\n{}\n", verb.details));
    }
    out.push_str("\nFlags:\n");
    push_flags(&mut out, verb.flags);
    if !verb.examples.is_empty() {
        out.push_str("\nExamples:\n");
        for (command, what) in verb.examples {
            out.push_str(&format!("  # {what}\n  dhow-runtime {command}\n"));
        }
    }
    out
}

fn push_flags(out: &mut String, flags: &[Flag]) {
    let mut rows: Vec<(String, &str)> =
        flags.iter().filter(|flag| !flag.hidden).map(|flag| (name(flag), flag.about)).collect();
    rows.push(("-h, --help".into(), "print this help"));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    for (name, about) in rows {
        out.push_str(&format!("  {name:<width$}{about}\n"));
    }
}

fn name(flag: &Flag) -> String {
    let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let value = flag.value.map_or_else(String::new, |value| format!(" {value}"));
    format!("{short}--{}{value}", flag.long)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Compares `text` with a file of the repository; `UPDATE_GOLDEN=1` writes it instead.
    fn golden(path: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is not what the tables say: UPDATE_GOLDEN=1 writes it", path.display());
    }

    #[test]
    fn help_text() {
        let texts: Vec<String> = std::iter::once(overview()).chain(VERBS.iter().map(of_verb)).collect();
        let text = texts.join("\n----\n\n");
        for line in text.lines() {
            assert!(line.chars().count() <= 110, "too wide: {line}");
        }
        golden("src/cli/help.golden", &text);
    }

    #[test]
    fn manual_page() {
        golden("../docs/man/dhow-runtime.8", &manual());
    }

    #[test]
    fn version_as_engines_parse_it() {
        let text = version();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split(" version ").collect::<Vec<_>>(),
            ["dhow-runtime", env!("CARGO_PKG_VERSION")]
        );
        assert_eq!(lines[1], "spec: 1.3.0");
        assert!(lines[1..].iter().all(|line| !line.contains("version")));
    }

    fn escape(text: &str) -> String {
        let text = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
        // A line that begins with a dot or a quote is a request.
        if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
    }

    fn push_manual_flags(out: &mut String, flags: &[Flag]) {
        for flag in flags.iter().filter(|flag| !flag.hidden) {
            out.push_str(&format!(".TP\n.B {}\n{}\n", escape(name(flag).trim_start()), escape(flag.about)));
        }
    }

    fn manual() -> String {
        let mut out = String::from(
            ".\\\" Written by the tests from the tables of runtime/src/cli/verbs.rs.\n\
             .TH DHOW\\-RUNTIME 8\n.SH NAME\ndhow\\-runtime \\- run containers after the OCI runtime specification\n\
             .SH SYNOPSIS\n.B dhow\\-runtime\n[FLAG...] COMMAND [FLAG...] [OPERAND...]\n\
             .SH DESCRIPTION\nCreates, runs and manages containers from bundles. The commands and flags are those of runc.\n\
             .SH GLOBAL FLAGS\n",
        );
        push_manual_flags(&mut out, GLOBALS);
        out.push_str(".SH COMMANDS\n");
        for verb in VERBS {
            let usage = format!("{} {}", verb.name, verb.operands.usage);
            out.push_str(&format!(".SS {}\n{}.\n", escape(usage.trim_end()), escape(verb.about)));
            if !verb.details.is_empty() {
                out.push_str(&format!(".PP\n{}\n", escape(verb.details)));
            }
            push_manual_flags(&mut out, verb.flags);
            for (command, what) in verb.examples {
                out.push_str(&format!(
                    ".PP\n{}:\n.PP\n.RS\ndhow\\-runtime {}\n.RE\n",
                    escape(what),
                    escape(command)
                ));
            }
        }
        out.push_str(
            ".SH EXIT STATUS\nThat of the process for run and exec, or 128 and the number of the signal that ended it. \
             255 when exec fails, 3 for an unknown command, 1 for any other failure.\n\
             .SH FILES\n.TP\n.B /run/dhow/runtime\nstate of root's containers\n\
             .TP\n.B $XDG_RUNTIME_DIR/dhow/runtime\nstate of a user's containers\n\
             .SH ENVIRONMENT\n.TP\n.B XDG_RUNTIME_DIR\nsee FILES\n.TP\n.B LISTEN_FDS, LISTEN_PID\nsockets of systemd, \
             passed on to the container\n.TP\n.B NOTIFY_SOCKET\nsocket of systemd, where readiness of the container is told\n",
        );
        out
    }
}
