//! The direction of dependencies between the packages, and where `unsafe` may stand.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace above").to_path_buf()
}

/// Direct dependencies of every package of the workspace, without those of tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(workspace())
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |v: &Value| v["name"].as_str().expect("a name").to_owned();
    let normal = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies").iter();
        all.filter(|d| d["kind"].is_null()).map(&name).collect()
    };
    packages.iter().map(|package| (name(package), normal(package))).collect()
}

/// What each package may use of the workspace, and the crates that it must not have.
/// A package that is not listed fails the test, so that a new one has to be thought about.
const MAY_USE: [(&str, &[&str]); 4] = [
    ("dhow-init", &[]),
    ("dhow-runtime", &["dhow-init"]),
    ("dhow-tests", &["dhow-init", "dhow-runtime"]),
    // The name only: see its source.
    ("regex", &[]),
];

/// No async runtime and no thread pool below the shim and the daemon.
const NEVER_IN_RUNTIME: [&str; 6] = ["tokio", "async-std", "smol", "rayon", "reqwest", "rusqlite"];

#[test]
fn packages_depend_in_one_direction() {
    let found = dependencies();
    for (package, uses) in &found {
        let allowed = MAY_USE.iter().find(|(name, _)| name == package);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("package {package} has no rule in MAY_USE"));
        for used in uses.iter().filter(|used| found.contains_key(*used)) {
            assert!(allowed.contains(&used.as_str()), "{package} must not depend on {used}");
        }
    }
}

#[test]
fn the_child_half_depends_on_libc_only() {
    let found = dependencies();
    assert_eq!(found["dhow-init"], BTreeSet::from(["libc".to_owned()]));
    let source = std::fs::read_to_string(workspace().join("runtime/init/src/lib.rs")).expect("init's source");
    assert!(source.contains("#![no_std]"), "dhow-init must not use std: the child may not allocate or lock");
    assert!(!source.contains("extern crate alloc"), "dhow-init must not allocate");
}

#[test]
fn the_runtime_has_no_executor() {
    let found = dependencies();
    for package in ["dhow-init", "dhow-runtime"] {
        for never in NEVER_IN_RUNTIME {
            assert!(!found[package].contains(never), "{package} must not depend on {never}");
        }
    }
}

fn sources(directory: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a source directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn unsafe_stands_in_sys_modules_only() {
    let mut files = Vec::new();
    sources(&workspace().join("runtime/src"), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        if file.file_name().is_some_and(|name| name == "sys.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl") {
                wrong.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe outside of a module called sys:\n{}", wrong.join("\n"));
}
