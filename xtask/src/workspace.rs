//! What cargo knows of this workspace, as plain data.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, MetadataCommand};

/// The repository and its crates.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The repository's root.
    pub(crate) root: PathBuf,
    /// Where cargo builds, and where everything that a task installs or logs goes.
    pub(crate) target: PathBuf,
    /// The members, by name.
    pub(crate) crates: Vec<Crate>,
}

/// One member of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crate {
    /// The package's name, such as `kitbag-domain`.
    pub(crate) name: String,
    /// Its folder, relative to the root, with `/`.
    pub(crate) folder: String,
    /// Its direct dependencies, of every kind.
    pub(crate) dependencies: Vec<Dependency>,
}

/// One dependency as a crate declares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dependency {
    /// The package's name.
    pub(crate) name: String,
    /// Whether it is for tests only.
    pub(crate) dev: bool,
    /// The features asked for, those inherited from the workspace included.
    pub(crate) features: Vec<String>,
}

impl Workspace {
    /// Asks cargo about the workspace around the current folder.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let metadata = MetadataCommand::new()
            .no_deps()
            .exec()
            .context("cannot read the workspace through `cargo metadata`")?;
        let root = metadata.workspace_root.as_std_path().to_owned();
        let mut crates = Vec::new();
        for package in metadata.workspace_packages() {
            let folder = package
                .manifest_path
                .parent()
                .context("a manifest lies in a folder")?
                .strip_prefix(&metadata.workspace_root)
                .context("a member lies below the root")?
                .to_string()
                .replace('\\', "/");
            let dependencies = package.dependencies.iter().map(|dependency| Dependency {
                name: dependency.name.clone(),
                dev: dependency.kind == DependencyKind::Development,
                features: dependency.features.clone(),
            });
            crates.push(Crate {
                name: package.name.to_string(),
                folder,
                dependencies: dependencies.collect(),
            });
        }
        crates.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            root,
            target: metadata.target_directory.into_std_path_buf(),
            crates,
        })
    }

    /// The path of a program that cargo has built in the development profile.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.built("debug", name)
    }

    /// The path of a program that cargo has built in the release profile.
    pub(crate) fn release_program(&self, name: &str) -> PathBuf {
        self.built("release", name)
    }

    fn built(&self, folder: &str, name: &str) -> PathBuf {
        let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        self.target.join(folder).join(file)
    }

    /// A path below the root.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }
}
