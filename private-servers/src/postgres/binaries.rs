//! The PostgreSQL server binaries that the system has.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    Error,
    account::{self, Account},
};

pub const OLDEST_MAJOR: u32 = 15;
/// Where Debian and its kin, and the PostgreSQL project's own packages, keep a directory for each version.
const VERSIONED: [&str; 2] = ["/usr/lib/postgresql", "/usr"];
const LOOKED_IN: &str = "/usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, pg_config --bindir, PATH";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    pub major: u32,
    pub directory: PathBuf,
}

impl Binaries {
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// All that `account` can run, in the order of the places where they are looked for. Runs each to ask its version, so it blocks.
pub fn find(account: &Account) -> Vec<Binaries> {
    let [debian, other] = VERSIONED.map(Path::new);
    let debian = entries(debian).map(|version| version.join("bin"));
    let is_versioned =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgsql-"));
    let other = entries(other).filter(is_versioned).map(|version| version.join("bin"));
    let told = output(Path::new("pg_config"), "--bindir").map(|line| PathBuf::from(line.trim()));
    let on_path = account::places(std::env::var_os("PATH").as_deref(), &[]);
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in debian.chain(other).chain(told).chain(on_path) {
        match fs::canonicalize(directory) {
            Ok(directory) if !directories.contains(&directory) => directories.push(directory),
            _ => {}
        }
    }
    directories.into_iter().filter_map(|directory| inspect(directory, account)).collect()
}

/// The version that made the data, or else the newest; of several of one version the first found.
pub fn choose(found: Vec<Binaries>, made_by: Option<u32>, data: &Path) -> Result<Binaries, Error> {
    if let Some(made_by) = made_by.filter(|made_by| *made_by < OLDEST_MAJOR) {
        return Err(Error::TooOld { path: data.to_path_buf(), made_by, oldest: OLDEST_MAJOR });
    }
    let majors: BTreeSet<u32> = found.iter().map(|binaries| binaries.major).collect();
    let fits = |binaries: &Binaries| match made_by {
        Some(made_by) => binaries.major == made_by,
        None => binaries.major >= OLDEST_MAJOR,
    };
    // The last of equals is what `max_by_key` gives.
    let best = found.into_iter().rev().filter(fits).max_by_key(|binaries| binaries.major);
    match (best, made_by) {
        (Some(binaries), _) => Ok(binaries),
        (None, Some(made_by)) if !majors.is_empty() => {
            let found = majors.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            Err(Error::OtherVersion { path: data.to_path_buf(), made_by, found })
        }
        (None, made_by) => {
            let oldest = made_by.unwrap_or(OLDEST_MAJOR);
            Err(Error::PostgresMissing { oldest, looked_in: LOOKED_IN.to_owned() })
        }
    }
}

fn inspect(directory: PathBuf, account: &Account) -> Option<Binaries> {
    let [postgres, initdb] = ["postgres", "initdb"].map(|name| directory.join(name));
    if !account.can_run(&postgres) || !account.can_run(&initdb) {
        return None;
    }
    let major = parse_major(&output(&postgres, "--version")?)?;
    Some(Binaries { major, directory })
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn output(program: &Path, argument: &str) -> Option<String> {
    let answer =
        Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `… 17devel`, `… 18beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|character: char| !character.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(majors: &[u32]) -> Vec<Binaries> {
        let at = |major: &u32| Binaries {
            major: *major,
            directory: format!("/usr/lib/postgresql/{major}/bin").into(),
        };
        majors.iter().map(at).collect()
    }

    fn chosen(majors: &[u32], made_by: Option<u32>) -> Result<u32, String> {
        let choice = choose(found(majors), made_by, Path::new("/data/postgres"));
        choice.map(|binaries| binaries.major).map_err(|error| error.to_string())
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 17devel\n"), Some(17));
        assert_eq!(parse_major("postgres (PostgreSQL) 18"), Some(18));
        assert_eq!(parse_major("postgres"), None);
    }

    #[test]
    fn new_data_get_the_newest_and_old_data_their_own() {
        assert_eq!(chosen(&[15, 17, 16], None), Ok(17));
        assert_eq!(chosen(&[9, 15, 17], Some(15)), Ok(15));
    }

    #[test]
    fn of_one_version_the_first_found_is_taken() {
        let mut twice = found(&[15, 15]);
        twice[1].directory = "/usr/local/bin".into();
        let choice = choose(twice, None, Path::new("/data/postgres")).unwrap();
        assert_eq!(choice.directory, Path::new("/usr/lib/postgresql/15/bin"));
    }

    #[test]
    fn a_refusal_says_in_one_line_what_to_install() {
        let missing = chosen(&[14], None).unwrap_err();
        assert!(
            missing.contains("15 or newer, not found") && missing.contains("set DATABASE_URL"),
            "{missing}"
        );
        let other = chosen(&[15, 17], Some(16)).unwrap_err();
        assert!(other.contains("made by PostgreSQL 16, but the servers found here are 15, 17"), "{other}");
        assert!(other.contains("install \"postgresql-16\""), "{other}");
        let old = chosen(&[13, 15], Some(13)).unwrap_err();
        assert!(old.contains("13, and 15 or newer is needed"), "{old}");
        assert!([missing, other, old].iter().all(|line| !line.contains('\n')));
    }
}
