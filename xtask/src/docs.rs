//! `cargo xtask docs [--check]`: the documents that are written from code. It must not hold any of their text.

use std::fs;

use crate::shell::{Done, cargo, output, root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when a document is not what the code says
    #[arg(long)]
    check: bool,
}

impl Arguments {
    /// `docs --check`
    pub(crate) fn check() -> Self {
        Self { check: true }
    }
}

/// The documents, by the names that `ringpost-reference` knows them by.
const DOCUMENTS: &[&str] = &["CONFIG", "METRICS", "REPLIES"];

pub(crate) fn run(arguments: &Arguments) -> Done {
    let mut stale = Vec::new();
    for name in DOCUMENTS {
        let path = root().join("docs").join(format!("{name}.md"));
        let reference =
            ["run", "--quiet", "--package", "ringpost-tests", "--bin", "ringpost-reference", name];
        let text = output(&mut cargo(&reference))?;
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            continue;
        }
        if arguments.check {
            stale.push(format!("docs/{name}.md"));
        } else {
            fs::create_dir_all(root().join("docs"))?;
            fs::write(&path, text)?;
            println!("wrote docs/{name}.md");
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("{} not what the code says: run `cargo xtask docs`", stale.join(", ")).into())
}
