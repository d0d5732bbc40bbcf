//! ARCHITECTURE.md's table of who may use whom, held against the manifests; and `unsafe`, against `sys` alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The rows `| `name` | `a`, `b` | … |` of the table below "Who may use whom".
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## Who may use whom").nth(1).expect("the section is there");
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let mut cells = line.split('|').skip(1);
            let name = quoted(cells.next()?).into_iter().next()?;
            Some((name, quoted(cells.next()?).into_iter().collect()))
        })
        .collect()
}

#[test]
fn the_crates_use_whom_the_table_lets_them() {
    let metadata =
        cargo_metadata::MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let table = allowed();
    let short = |name: &str| name.trim_start_matches("berth-").to_owned();
    let mut seen = BTreeSet::new();
    for package in &metadata.packages {
        let name = short(&package.name);
        let own = package.dependencies.iter().filter(|dependency| dependency.name.starts_with("berth-"));
        let used: BTreeSet<_> = own
            .filter(|dependency| dependency.kind == cargo_metadata::DependencyKind::Normal)
            .map(|dependency| short(&dependency.name))
            .collect();
        let may = table.get(&name).unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for {name}"));
        assert_eq!(used, *may, "{name}: the manifest (left) and ARCHITECTURE.md (right) differ");
        seen.insert(name);
    }
    assert_eq!(
        seen,
        table.keys().cloned().collect(),
        "the crates (left) and the rows of ARCHITECTURE.md (right) differ"
    );
}

fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
}

#[test]
fn only_sys_is_unsafe_and_every_other_crate_forbids_it() {
    let root = root();
    let mut all = Vec::new();
    sources(&root, &mut all);
    let word = ["un", "safe "].concat();
    for path in all.iter().filter(|path| !path.starts_with(root.join("sys"))) {
        let text = fs::read_to_string(path).unwrap();
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        assert!(!code.clone().any(|line| line.contains(&word)), "{} has code that is not safe", path.display());
    }
    let crate_roots = all.iter().filter(|path| {
        let name = path.file_name().unwrap();
        (name == "lib.rs" || name == "main.rs") && path.parent().unwrap().ends_with("src")
    });
    for path in crate_roots.filter(|path| !path.starts_with(root.join("sys"))) {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{} does not forbid it", path.display());
    }
}

#[test]
fn plans_have_no_clock_no_input_and_no_output() {
    let mut all = Vec::new();
    // The layers that reconcile; the runtime's plans are another thing: a new process's steps, with what it inherits.
    ["kubelet", "master"].iter().for_each(|crate_root| sources(&root().join(crate_root), &mut all));
    let is_plan = |path: &&PathBuf| {
        let folder = path.parent().is_some_and(|folder| folder.ends_with("plan"));
        (folder || path.ends_with("plan.rs")) && !path.ends_with("tests.rs")
    };
    let plans: Vec<_> = all.iter().filter(is_plan).collect();
    assert!(plans.len() > 5, "the plans have moved: {plans:?}");
    for path in plans {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for impure in
            ["::now()", "async ", ".await", "std::fs", "std::env", "tracing::", "println!", "rand::", "tokio::"]
        {
            assert!(!code.contains(impure), "{} is a plan and has {impure:?}", path.display());
        }
    }
}
