//! The table of `list`.

use dhow_runtime::Status;

/// Columns are at least so wide, the space after them included.
const LEAST_WIDTH: usize = 12;
/// The space after a column.
const SPACE: usize = 3;
const TITLES: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];

/// A line for each container below one of titles.
pub fn table(containers: &[Status]) -> String {
    let rows: Vec<[String; 6]> = containers
        .iter()
        .map(|c| {
            [
                c.id.clone(),
                c.pid.to_string(),
                c.status.to_string(),
                c.bundle.to_string_lossy().into_owned(),
                c.created.to_string(),
                c.owner.clone(),
            ]
        })
        .collect();
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (longest.max(TITLES[column].len()) + SPACE).max(LEAST_WIDTH)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut out = String::new();
    let mut line = |cells: [&str; 6]| {
        for (cell, width) in cells.iter().zip(widths) {
            out.push_str(&format!("{cell:width$}"));
        }
        out.push_str(cells[5]);
        out.push('\n');
    };
    line(TITLES);
    for row in &rows {
        line(row.each_ref().map(String::as_str));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell() {
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
        let status = |id: &str, bundle: &str| Status {
            oci_version: "1.3.0".into(),
            id: id.into(),
            pid: 7,
            status: "running".into(),
            bundle: bundle.into(),
            rootfs: "/r".into(),
            created: "2026-03-01T09:30:00.5Z".into(),
            annotations: Default::default(),
            owner: "root".into(),
        };
        assert_eq!(
            table(&[status("a", "/b"), status("a-long-name", "/a/longer/bundle")]),
            "ID            PID         STATUS      BUNDLE             CREATED                  OWNER\n\
             a             7           running     /b                 2026-03-01T09:30:00.5Z   root\n\
             a-long-name   7           running     /a/longer/bundle   2026-03-01T09:30:00.5Z   root\n"
        );
    }
}
