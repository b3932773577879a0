//! The lines of the host's `ps` that are about a container.

use crate::cli::error::CliError;

/// The title of `ps` and those of its lines whose PID is one of `pids`.
pub fn filter(output: &str, pids: &[i32]) -> Result<String, CliError> {
    let mut lines = output.lines();
    let title = lines.next().unwrap_or("");
    let column = title.split_whitespace().position(|name| name == "PID").ok_or(CliError::PsTitle)?;
    let mut out = format!("{title}\n");
    for line in lines {
        // Lines without a number there are continuations, as threads and wide formats print them.
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_column_of_the_pid() {
        let output = "UID          PID    PPID CMD\nroot           1       0 init 20\nroot          20       1 sh\n\nroot 3 20 x\n";
        assert_eq!(
            filter(output, &[20, 99]).unwrap(),
            "UID          PID    PPID CMD\nroot          20       1 sh\n"
        );
        assert_eq!(filter(output, &[]).unwrap(), "UID          PID    PPID CMD\n");
        assert!(filter("NO TITLE\n", &[1]).is_err());
        assert!(filter("", &[1]).is_err());
    }
}
