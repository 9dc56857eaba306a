//! A copy of the committed tree, in which rules are taken out and put back.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::table::Mutant;
use crate::process;

/// The copy, with what is built of it.
pub(crate) struct Copy {
    /// Where the files of the commit lie.
    pub(crate) tree: PathBuf,
    /// Where cargo builds them.
    pub(crate) target: PathBuf,
    /// Where programs leave what they print.
    pub(crate) logs: PathBuf,
    /// The commit, shortened.
    pub(crate) commit: String,
    /// Keeps other runs away for as long as it is open.
    _lock: File,
}

impl Copy {
    /// Brings the copy in `dir` to the commit that is checked out at `root`, or makes it.
    ///
    /// Only files that differ are written, so that what was built before is of use. The tree at
    /// `root` and its index are not touched.
    pub(crate) fn refresh(root: &Path, dir: &Path) -> anyhow::Result<Self> {
        let [tree, target, logs] = ["tree", "build", "logs"].map(|name| dir.join(name));
        for folder in [&tree, &logs] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let lock = lock(dir)?;
        let commit = git(root, &["rev-parse", "--short", "HEAD"])?;
        let git_dir = git(root, &["rev-parse", "--absolute-git-dir"])?;
        let mut checkout = Command::new("git");
        checkout
            .current_dir(&tree)
            .args(["--git-dir", &git_dir, "--work-tree", "."])
            .args(["read-tree", "--reset", "-u", "HEAD"])
            // An index of its own: it knows which files of the copy are as they were written.
            .env("GIT_INDEX_FILE", dir.join("index"));
        let output = checkout.output().context("cannot run `git`")?;
        ensure!(
            output.status.success(),
            "cannot copy the commit: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Self {
            tree,
            target,
            logs,
            commit,
            _lock: lock,
        })
    }

    /// Takes a rule out until the result is dropped.
    pub(crate) fn mutate(&self, mutant: &Mutant) -> anyhow::Result<Mutated> {
        let path = self.tree.join(&mutant.file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", mutant.file))?;
        let mutated = mutant.apply(&text);
        let mutated = mutated.map_err(|count| {
            let file = &mutant.file;
            anyhow::anyhow!("the text is found {count} times in {file} as committed, not once")
        })?;
        fs::write(&path, mutated).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Mutated { path, text })
    }
}

/// A file of the copy without one of its rules.
pub(crate) struct Mutated {
    path: PathBuf,
    text: String,
}

impl Drop for Mutated {
    fn drop(&mut self) {
        // With a new time, by which cargo sees that it has to be built again. Where this fails, so
        // does the next mutant of the file, since its text is gone; the next run begins afresh.
        fs::write(&self.path, &self.text).ok();
    }
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another run works in {}", dir.display()),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the copy"),
    }
}

fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("git");
    let answer = process::ask(command.current_dir(root).args(arguments));
    answer.with_context(|| format!("`git {}` failed", arguments.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(dir: &Path, script: &str) {
        let mut command = Command::new("bash");
        command.args(["-ec", script]).current_dir(dir);
        // Settings of whoever runs the tests are not for this repository.
        for (name, value) in [
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@x"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@x"),
        ] {
            command.env(name, value);
        }
        assert!(command.output().unwrap().status.success(), "{script}");
    }

    fn mutant(find: &str) -> Mutant {
        Mutant {
            name: "m".to_owned(),
            file: "a.rs".to_owned(),
            find: find.to_owned(),
            replace: "false".to_owned(),
            red: Vec::new(),
        }
    }

    #[test]
    fn copy_is_of_the_commit_and_leaves_the_tree_alone() {
        let root = std::env::temp_dir().join(format!("xtask-{}-copy", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        sh(
            &root,
            "git init -q .; echo true > a.rs; echo b > b.rs; git add .; git commit -qm one",
        );
        sh(&root, "echo edited > a.rs");
        let dir = root.join("copy");
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        let copy = Copy::refresh(&root, &dir).unwrap();
        assert_eq!(read("copy/tree/a.rs"), "true\n");
        assert!(Copy::refresh(&root, &dir).is_err(), "one run at a time");
        assert!(copy.mutate(&mutant("none")).is_err());
        let mutated = copy.mutate(&mutant("true")).unwrap();
        assert_eq!(read("copy/tree/a.rs"), "false\n");
        drop(mutated);
        assert_eq!(read("copy/tree/a.rs"), "true\n");
        // As where a run is cut short.
        fs::write(dir.join("tree/a.rs"), "false").unwrap();
        drop(copy);
        sh(&root, "git rm -q b.rs; git commit -qm two");
        drop(Copy::refresh(&root, &dir).unwrap());
        assert_eq!(read("copy/tree/a.rs"), "true\n");
        assert!(!dir.join("tree/b.rs").try_exists().unwrap());
        assert_eq!(read("a.rs"), "edited\n");
        fs::remove_dir_all(root).unwrap();
    }
}
