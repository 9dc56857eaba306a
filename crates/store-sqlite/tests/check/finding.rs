//! What a check finds, of rows, of pages and of the file.

use std::fs;

use kitbag_store_sqlite::check::{self, Kind, Report};
use tempfile::tempdir;

use crate::harms::HARMS;
use crate::{Ground, shown};

#[tokio::test]
async fn a_sound_store_is_told_as_it_is_and_nothing_is_written() {
    let ground = Ground::new().await;
    let before = (fs::read(ground.file()).unwrap(), ground.files());
    let report = ground.check();
    assert_eq!(shown(&report), [""; 0]);
    assert!(report.is_sound());
    // Contents of 13, 2, 3 and 8 bytes, four types of one, and the device's name twice.
    let expected = (Some("localhost".to_owned()), 2, 2, 4, 40);
    let Report {
        server_name,
        format,
        users,
        entries,
        bytes,
        ..
    } = report;
    assert_eq!((server_name, format, users, entries, bytes), expected);
    assert_eq!((fs::read(ground.file()).unwrap(), ground.files()), before);
    let mended = ground.mend();
    assert_eq!((mended.copy, mended.mends), (None, vec![]));
    assert_eq!(fs::read(ground.file()).unwrap(), before.0);
}

#[tokio::test]
async fn each_harm_is_found_and_what_can_be_derived_is_mended() {
    let sound = Ground::new().await;
    for harm in HARMS {
        let ground = Ground {
            dir: tempdir().unwrap(),
        };
        fs::copy(sound.file(), ground.file()).unwrap();
        ground.harm(harm.sql);
        let harmed = fs::read(ground.file()).unwrap();
        assert_eq!(shown(&ground.check()), harm.found, "{}", harm.sql);
        assert_eq!(fs::read(ground.file()).unwrap(), harmed, "{}", harm.sql);
        let mended = ground.mend();
        assert_eq!(shown(&mended.before), harm.found, "{}", harm.sql);
        assert_eq!(shown(&mended.after), harm.left, "{}", harm.sql);
        assert_eq!(shown(&ground.check()), harm.left, "{}", harm.sql);
        let is_mended = harm.found != harm.left;
        assert_eq!(mended.copy.is_some(), is_mended, "{}", harm.sql);
        assert_eq!(!mended.mends.is_empty(), is_mended, "{}", harm.sql);
        if let Some(copy) = mended.copy {
            assert_eq!(copy, ground.path().join("kitbag.db.before-repair-now"));
            let copied = check::check_copy(&copy).unwrap();
            assert_eq!(shown(&copied), harm.found, "the copy is of before");
        } else {
            let now = fs::read(ground.file()).unwrap();
            assert_eq!(now, harmed, "nothing was touched: {}", harm.sql);
        }
        let text = format!("{:?} {:?}", mended.before.findings, mended.mends);
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn findings_are_bounded_and_all_are_mended() {
    let ground = Ground::new().await;
    ground.harm(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
         INSERT INTO users (name, created_at, entries) SELECT '@u' || i || ':localhost', 0, 1 FROM n",
    );
    let report = ground.check();
    assert_eq!(report.findings.len(), check::FINDINGS_MAX);
    assert_eq!(report.findings_left_out, 100);
    let mended = ground.mend();
    assert_eq!(mended.mends.len(), 1_100);
    assert!(mended.after.is_sound());
}

#[tokio::test]
async fn findings_that_are_left_out_decide_like_those_that_are_told() {
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
        INSERT INTO users (id, name, created_at) SELECT 10 + i, 'no user ' || i, 1 FROM n;";
    let ground = Ground::new().await;
    ground.harm(many);
    ground.harm(
        "INSERT INTO users (id, name, created_at, entries) VALUES (5000, '@zoe:localhost', 1, 9)",
    );
    let found = ground.check();
    assert!(found.findings_left_out > 0);
    assert!(
        found
            .findings
            .iter()
            .all(|found| found.kind == Kind::Unreadable)
    );
    assert!(found.is_mendable());
    let mended = ground.mend();
    let texts: Vec<_> = mended.mends.iter().map(|mend| mend.text.as_str()).collect();
    assert_eq!(texts, ["set the count to 0 entries of 0 bytes"]);
}

#[tokio::test]
async fn damaged_pages_are_found_and_left_alone() {
    let sound = Ground::new().await;
    let bytes = fs::read(sound.file()).unwrap();
    let pages = bytes.len() / 4096;
    assert!(pages > 10, "{pages}");
    // The first page is the header's, which says what the file is.
    for page in 1..pages {
        let ground = Ground {
            dir: tempdir().unwrap(),
        };
        let mut damaged = bytes.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0);
        fs::write(ground.file(), &damaged).unwrap();
        let report = ground.check();
        assert!(report.is_damaged(), "page {page}: {report:?}");
        let mended = ground.mend();
        assert_eq!((mended.copy, mended.mends), (None, vec![]), "page {page}");
        assert_eq!(fs::read(ground.file()).unwrap(), damaged, "page {page}");
        assert_eq!(ground.files(), ["kitbag.db", "lock"]);
    }
}

#[tokio::test]
async fn a_file_cut_short_is_found_and_left_alone() {
    let sound = Ground::new().await;
    let bytes = fs::read(sound.file()).unwrap();
    for length in [
        0,
        4096,
        bytes.len() / 2,
        bytes.len() - 4096,
        bytes.len() - 1,
    ] {
        let ground = Ground {
            dir: tempdir().unwrap(),
        };
        fs::copy(sound.path().join("lock"), ground.path().join("lock")).unwrap();
        fs::write(ground.file(), &bytes[..length]).unwrap();
        let report = ground.check();
        assert!(report.is_damaged(), "{length} bytes: {report:?}");
        let said = match length {
            0 => "it is empty, but a store was made in this directory".to_owned(),
            _ => format!("it is cut short: {length} bytes of {}", bytes.len()),
        };
        assert_eq!(shown(&report), [format!("damage - {said}")]);
        assert_eq!(fs::read(ground.file()).unwrap(), &bytes[..length]);
    }
}
