//! Python, and packages of locked versions in environments below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::process;

/// The locked versions are for this one; the later ones work too.
const PYTHONS: [&str; 5] = [
    "python3.11",
    "python3",
    "python3.12",
    "python3.13",
    "python3.14",
];

/// Says the version if it is one that the locked packages have wheels for.
const QUESTION: &str = "import sys, venv, ensurepip
assert (3, 11) <= sys.version_info < (3, 15)
print(sys.version)";

/// What to tell who has none.
pub(crate) const MISSING: &str = "needs Python 3.11 to 3.14 with venv: on Debian `apt-get install python3-venv`, \
     else https://www.python.org/downloads/";

/// A Python of the system.
#[derive(Debug)]
pub(crate) struct Python {
    program: &'static str,
    version: String,
}

impl Python {
    /// Looks for one; `None` where there is none that will do.
    pub(crate) fn find() -> Option<Self> {
        PYTHONS.into_iter().find_map(|program| {
            let version = process::ask(Command::new(program).args(["-c", QUESTION]))?;
            Some(Self { program, version })
        })
    }

    /// Makes the environment `folder` unless one of the same packages is there; returns its Python.
    ///
    /// # Errors
    /// When the packages of the file `requirements` cannot be installed.
    pub(crate) fn environment(
        &self,
        folder: &Path,
        requirements: &Path,
    ) -> anyhow::Result<PathBuf> {
        let python = folder.join("bin/python");
        let locked = fs::read_to_string(requirements)
            .with_context(|| format!("cannot read {}", requirements.display()))?;
        let wanted = format!("{}\n{locked}", self.version);
        install(folder, &wanted, || {
            let mut venv = Command::new(self.program);
            venv.args(["-m", "venv", "--clear"]).arg(folder);
            process::run(venv)?;
            let mut pip = Command::new(&python);
            // Wheels only and no resolving: what is installed is what the file says, or nothing.
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args([
                "--no-input",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--requirement",
            ])
            .arg(requirements);
            process::run(pip).map(drop)
        })?;
        Ok(python)
    }
}

/// Installs unless `folder` holds an installation of just what is `wanted`.
///
/// The stamp is written last, so that a broken installation is done again.
pub(crate) fn install(
    folder: &Path,
    wanted: &str,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stamp = folder.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if stamp.try_exists()? {
        fs::remove_file(&stamp).with_context(|| format!("cannot remove {}", stamp.display()))?;
    }
    work().context(
        "cannot install packages (the registries of Python, npm or Debian are needed once)",
    )?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn install_is_done_once_for_the_same_packages() {
        let folder = std::env::temp_dir().join(format!("xtask-install-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut runs = 0;
        for wanted in ["a", "a", "b"] {
            install(&folder, wanted, || {
                runs += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(runs, 2);
        fs::remove_dir_all(&folder).unwrap();
    }
}
