//! The log that callers read: lines in the form of logrus, which runc uses, as text or JSON.
//!
//! Without `--log` they go to standard error. With it they are appended to that file, and an error is printed on standard
//! error as well. The file is opened when there is something to write: most commands never write, and a caller reads the
//! file only after a failure. An error is always the last line. Nothing but errors and warnings is written without
//! `--debug`, because podman reads the file as one JSON object.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use dhow_runtime::clock;

/// How severe a message is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For finding out what goes on.
    Debug,
    /// Something the user should know.
    Warning,
    /// Why the command failed.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="..." level=error msg="..."`
    #[default]
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`
    Json,
}

/// Where messages go.
pub struct Log {
    file: Option<PathBuf>,
    format: Format,
    least: Level,
}

impl Log {
    /// A log to `file`, or standard error.
    pub fn new(file: Option<PathBuf>, format: Format, least: Level) -> Log {
        Log { file, format, least }
    }

    /// Whether [`Log::debug`] writes anything: its message need not be made otherwise.
    pub fn is_debug(&self) -> bool {
        self.least == Level::Debug
    }

    /// Notes what goes on, with `--debug`.
    pub fn debug(&self, message: &str) {
        self.write(Level::Debug, message);
    }

    /// Tells the user something that does not make the command fail.
    pub fn warn(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    /// Says why the command failed.
    pub fn error(&self, message: &str) {
        if self.write(Level::Error, message) && self.file.is_some() {
            print(&format!("{message}\n"));
        }
    }

    /// Writes a line; says whether it went where it should.
    fn write(&self, level: Level, message: &str) -> bool {
        if level < self.least {
            return true;
        }
        let Some(path) = &self.file else {
            if self.format == Format::Text && io::stderr().is_terminal() {
                print(&format!("{}: {message}\n", level.name()));
            } else {
                print(&line(self.format, level, message, &clock::now()));
            }
            return true;
        };
        let line = line(self.format, level, message, &clock::now());
        let written = open(path).and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = &written {
            print(&format!("write log {}: {error}\n{line}", path.display()));
        }
        written.is_ok()
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn print(text: &str) {
    // With standard error closed there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn line(format: Format, level: Level, message: &str, time: &str) -> String {
    let level = level.name();
    match format {
        Format::Text => format!("time={} level={level} msg={}\n", quoted(time), quoted(message)),
        Format::Json => {
            let message = serde_json::Value::from(message);
            format!("{{\"level\":\"{level}\",\"msg\":{message},\"time\":\"{time}\"}}\n")
        }
    }
}

/// `value` in quotes, unless every character of it is one that a value may have without.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let time = "2026-03-01T09:30:00Z";
        assert_eq!(
            line(Format::Text, Level::Error, "exec: \"foo\": no\n\x1b", time),
            "time=\"2026-03-01T09:30:00Z\" level=error msg=\"exec: \\\"foo\\\": no\\n\\x1b\"\n"
        );
        assert_eq!(
            line(Format::Text, Level::Warning, "plain", time),
            "time=\"2026-03-01T09:30:00Z\" level=warning msg=plain\n"
        );
        assert_eq!(
            line(Format::Json, Level::Error, "exec: \"foo\"\n", time),
            "{\"level\":\"error\",\"msg\":\"exec: \\\"foo\\\"\\n\",\"time\":\"2026-03-01T09:30:00Z\"}\n"
        );
    }

    #[test]
    fn appended_to_a_file_that_need_not_exist() {
        let path = std::env::temp_dir().join(format!("dhow-test-log-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let log = Log::new(Some(path.clone()), Format::Json, Level::Warning);
        log.debug("left out");
        assert!(!path.exists());
        log.warn("one");
        log.warn("two");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let messages: Vec<String> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["msg"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(messages, ["one", "two"]);
    }
}
