//! Medians, ratios and goals, as Markdown.

use crate::bench::subject::{Kind, Subject, Verb};
use crate::bench::worker::View;
use std::fmt::Write;

/// What was measured in one view.
#[derive(Debug)]
pub struct Section {
    /// The view.
    pub view: View,
    /// The floor first, then the runtime under test if it works, then its peers.
    pub subjects: Vec<Subject>,
    /// Which of them is the runtime under test.
    pub tested: Option<usize>,
    /// Whose seccomp filter the floor had, and of how many instructions.
    pub filter: String,
}

/// The runtime's file.
#[derive(Debug, Clone, Copy)]
pub struct Binary {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Whether it needs no program loader.
    pub is_static: bool,
}

/// The file's size, and whether it is a static ELF file.
///
/// # Errors
/// The file cannot be read.
pub fn binary(path: &std::path::Path) -> std::io::Result<Binary> {
    let bytes = std::fs::read(path)?;
    let half = |at: usize| bytes.get(at..at + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let word = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    // ELF64, little-endian: e_phoff, e_phentsize, e_phnum; a program header begins with its type.
    let (headers, size, count) = (word(0x20) as usize, half(0x36), half(0x38));
    const PT_INTERP: u32 = 3;
    let interpreted = (0..count).any(|i| word(headers + i * size) == PT_INTERP);
    let is_elf64 = bytes.starts_with(b"\x7fELF\x02\x01");
    Ok(Binary { size_bytes: bytes.len() as u64, is_static: is_elf64 && !interpreted })
}

/// The middle value; of an even number the mean of the two in the middle.
#[must_use]
pub fn median(values: &[u64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle] as f64),
        _ => Some((sorted[middle - 1] + sorted[middle]) as f64 / 2.0),
    }
}

fn median_ns(subject: &Subject, verb: Verb) -> Option<f64> {
    subject.times_ns.get(&verb).and_then(|times| median(times))
}

fn row(out: &mut String, head: &str, cells: impl IntoIterator<Item = String>) {
    let _ = write!(out, "| {head} |");
    for cell in cells {
        let _ = write!(out, " {cell} |");
    }
    out.push('\n');
}

fn table_head(out: &mut String, corner: &str, names: &[&str]) {
    row(out, corner, names.iter().map(|&name| name.to_owned()));
    let _ = writeln!(out, "|---|{}", "--:|".repeat(names.len()));
}

/// The tables of one view.
#[must_use]
pub fn tables(section: &Section, rounds: usize) -> String {
    let mut out = String::new();
    let names: Vec<&str> = section.subjects.iter().map(|s| s.name.as_str()).collect();
    let _ = writeln!(out, "### cgroup {} view\n", section.view.name());
    let _ =
        writeln!(out, "Milliseconds, medians of {rounds} interleaved rounds (in brackets the fastest):\n");
    table_head(&mut out, "", &names);
    for verb in Verb::ALL {
        let cells = section.subjects.iter().map(|subject| match median_ns(subject, verb) {
            Some(ns) => {
                let fastest = subject.times_ns[&verb].iter().min().copied().unwrap_or_default();
                format!("{:.2} ({:.2})", ns / 1e6, fastest as f64 / 1e6)
            }
            None if subject.failures.contains_key(&verb) => "failed".to_owned(),
            None => "".to_owned(),
        });
        row(&mut out, verb.name(), cells);
    }
    let _ = writeln!(out, "\nThe floor's `--version` is a static true. {}\n", section.filter);
    if let Some(tested) = section.tested {
        let tested = &section.subjects[tested];
        let others: Vec<&Subject> = section.subjects.iter().filter(|s| s.name != tested.name).collect();
        let _ = writeln!(out, "{} as a multiple of the others' medians:\n", tested.name);
        table_head(&mut out, "", &others.iter().map(|s| s.name.as_str()).collect::<Vec<_>>());
        for verb in Verb::ALL {
            let own = median_ns(tested, verb);
            let ratio = |other: &&Subject| Some(format!("{:.2}", own? / median_ns(other, verb)?));
            row(&mut out, verb.name(), others.iter().map(|other| ratio(other).unwrap_or_default()));
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "Work: system calls (of them the container's own program's) / processes, the container's included / execs after \
         the command's own / threads besides / peak resident KiB of the runtime's processes:\n"
    );
    table_head(&mut out, "", &names);
    for verb in Verb::COUNTED {
        let cells = section.subjects.iter().map(|subject| {
            subject.tallies.get(&verb).map_or_else(String::new, |t| {
                format!(
                    "{} ({}) / {} / {} / {} / {}",
                    t.calls, t.payload_calls, t.processes, t.execs, t.threads, t.peak_kib
                )
            })
        });
        row(&mut out, verb.name(), cells);
    }
    if section.subjects.iter().any(|s| s.runs_in_512_kib.is_some()) {
        let cells = section.subjects.iter().map(|subject| match subject.runs_in_512_kib {
            Some(true) => "pass".to_owned(),
            Some(false) => "FAIL".to_owned(),
            None => String::new(),
        });
        row(&mut out, "`run` with a memory limit of 512 KiB", cells);
    }
    for subject in &section.subjects {
        for (verb, failure) in &subject.failures {
            let _ = writeln!(out, "\n{} {}: {}", subject.name, verb.name(), failure.replace('\n', " "));
        }
    }
    out
}

/// A goal of the runtime: what was measured must be at most `limit`.
struct Goal {
    what: String,
    measured: Option<f64>,
    limit: f64,
    unit: &'static str,
}

/// The goals with what was measured for each, and whether all that were measured are met.
#[must_use]
pub fn goals(sections: &[Section], binary: Binary) -> (String, bool) {
    let mut goals = Vec::new();
    for section in sections {
        let Some(tested) = section.tested.map(|i| &section.subjects[i]) else { continue };
        let view = section.view.name();
        let own = |verb| median_ns(tested, verb);
        let floor = section.subjects.iter().find(|s| matches!(s.kind, Kind::Floor { .. }));
        let mut against = |verb: Verb, other: Option<&Subject>, name: &str, limit: f64| {
            let measured =
                own(verb).zip(other.and_then(|o| median_ns(o, verb))).map(|(own, other)| own / other);
            goals.push(Goal {
                what: format!("{view}: `{}` / {name}", verb.name()),
                measured,
                limit,
                unit: "x",
            });
        };
        let named = |prefix: &str| section.subjects.iter().find(|s| s.name.starts_with(prefix));
        against(Verb::Run, floor, "floor", 1.5);
        against(Verb::Run, named("crun 1.21"), "crun 1.21", 0.5);
        against(Verb::Run, named("crun 1.8.1"), "crun 1.8.1", 0.35);
        for runc in section.subjects.iter().filter(|s| s.name.starts_with("runc ")) {
            against(Verb::Run, Some(runc), &runc.name, 0.2);
        }
        for verb in [Verb::Exec, Verb::State, Verb::Delete] {
            against(verb, named("crun 1.8.1"), "crun 1.8.1", 0.4);
        }
        against(Verb::Version, floor, "static true", 1.3);
        let run = tested.tallies.get(&Verb::Run);
        let mut count = |what: &str, measured: Option<u64>, limit: f64, unit| {
            goals.push(Goal {
                what: format!("{view}: {what}"),
                measured: measured.map(|n| n as f64),
                limit,
                unit,
            });
        };
        count("system calls of a `run`", run.map(|t| t.calls), 450.0, "");
        count("processes of a `run` besides the container's", run.map(|t| t.processes - 1), 1.0, "");
        count("execs of a `run` besides the container's", run.map(|t| t.execs.saturating_sub(1)), 0.0, "");
        let peak = Verb::COUNTED.iter().filter_map(|verb| tested.tallies.get(verb)).map(|t| t.peak_kib).max();
        count("peak resident memory of any verb", peak, 2560.0, "KiB");
        if let Some(runs) = tested.runs_in_512_kib {
            count("containers with a memory limit of 512 KiB that fail", Some(u64::from(!runs)), 0.0, "");
        }
    }
    goals.push(Goal {
        what: "size of the binary".to_owned(),
        measured: Some(binary.size_bytes as f64 / 1024.0),
        limit: 3072.0,
        unit: "KiB",
    });
    goals.push(Goal {
        what: "program loaders the binary needs".to_owned(),
        measured: Some(f64::from(u8::from(!binary.is_static))),
        limit: 0.0,
        unit: "",
    });

    let mut out = String::from("### Goals\n\n");
    table_head(&mut out, "goal", &["at most", "measured", ""]);
    let mut all_met = true;
    for goal in goals {
        // A ratio is shown to two places, and judged as it was measured.
        let show = |value: f64| {
            let number = if goal.unit == "x" { format!("{value:.2}") } else { format!("{value:.0}") };
            format!("{number} {}", goal.unit).trim_end().to_owned()
        };
        let (measured, verdict) = match goal.measured {
            Some(value) if value <= goal.limit => (show(value), "met"),
            Some(value) => {
                all_met = false;
                (show(value), "NOT MET")
            }
            None => ("not measured".to_owned(), ""),
        };
        row(&mut out, &goal.what, [show(goal.limit), measured, verdict.to_owned()]);
    }
    (out, all_met)
}

/// Where a document's measured part begins and ends.
pub const RECORD: [&str; 2] = ["<!-- bench-runtime: begin -->\n", "<!-- bench-runtime: end -->\n"];

/// The document with its measured part replaced; `None` if it has none.
#[must_use]
pub fn record(document: &str, measured: &str) -> Option<String> {
    let (before, rest) = document.split_once(RECORD[0])?;
    let (_, after) = rest.split_once(RECORD[1])?;
    Some(format!("{before}{}\n{}\n\n{}{after}", RECORD[0], measured.trim(), RECORD[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_measured_part_is_replaced() {
        let [begin, end] = RECORD;
        let document = format!("a\n{begin}old\n{end}b\n");
        assert_eq!(record(&document, "new\n"), Some(format!("a\n{begin}\nnew\n\n{end}b\n")));
        assert_eq!(record("a\n", "new"), None);
    }

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(&[3, 1, 2]), Some(2.0));
        assert_eq!(median(&[4, 1, 3, 2]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_goal_not_met_says_so() {
        let (text, met) = goals(&[], Binary { size_bytes: 4 << 20, is_static: true });
        assert!(!met);
        assert!(text.contains("| size of the binary | 3072 KiB | 4096 KiB | NOT MET |"), "{text}");
        assert!(goals(&[], Binary { size_bytes: 1 << 20, is_static: true }).1);
    }
}
