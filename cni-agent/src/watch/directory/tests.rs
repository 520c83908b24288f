// SPDX-License-Identifier: Apache-2.0
//! Looks at real directories, with the time told by the test.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::time::SystemTime;

use super::*;

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
const LABELLED: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {a: b}\n";

struct Fixture {
    folder: tempfile::TempDir,
    scan: Scan,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = folder.path().join("objects");
        fs::create_dir(&objects).unwrap();
        let status = objects.join("status");
        let own = status.join("b-agent-n1");
        let scan = Scan::new(Directory { objects, status, own, node: "n1".into() });
        Self { folder, scan, now: Instant::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("objects").join(name)
    }

    /// Writes a file that looks as if it was long ago.
    fn old(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let past = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(&path).unwrap().set_modified(past).unwrap();
        path
    }

    /// Writes a file whose last write is always just now.
    fn young(&self, name: &str, text: &str) -> PathBuf {
        let path = self.old(name, text);
        let future = SystemTime::now() + Duration::from_secs(60);
        File::options().write(true).open(&path).unwrap().set_modified(future).unwrap();
        path
    }

    fn look(&mut self) -> Found {
        self.scan.look(&BTreeSet::new(), self.now)
    }

    fn look_later(&mut self) -> Found {
        self.now += STILL;
        self.look()
    }
}

fn labels(news: &[News]) -> Vec<usize> {
    news.iter().map(|item| if let News::Namespace(namespace) = item { namespace.labels.len() } else { 99 }).collect()
}

#[test]
fn a_file_that_is_emptied_or_broken_or_gone_for_a_moment_loses_nothing() {
    let mut fixture = Fixture::new();
    let path = fixture.old("a.yaml", NAMESPACE);
    let found = fixture.look();
    assert!(found.complete && labels(&found.news) == [0]);

    fixture.old("a.yaml", "");
    let found = fixture.look();
    assert!(found.again && found.news.is_empty());
    fixture.old("a.yaml", "apiVersion: v1\nkind: [");
    let found = fixture.look();
    assert!(found.news.is_empty());
    assert_eq!(found.faults.len(), 1);
    fixture.old("a.yaml", NAMESPACE);
    let found = fixture.look();
    assert!(!found.again && found.faults.is_empty() && found.news.is_empty());

    fs::remove_file(&path).unwrap();
    assert!(fixture.look().again);
    // Being woken early does not make a second look.
    fixture.now += STILL / 2;
    let found = fixture.look();
    assert!(found.again && found.news.is_empty());
    assert_eq!(fixture.look_later().news, [News::NamespaceGone { name: "shop".into() }]);
}

#[test]
fn a_half_written_file_is_not_believed_until_it_stands_or_is_closed() {
    let mut fixture = Fixture::new();
    fixture.old("a.yaml", LABELLED);
    assert_eq!(labels(&fixture.look().news), [1]);
    // It parses, and holds as many documents, but the labels are not written yet.
    fixture.young("a.yaml", NAMESPACE);
    let found = fixture.look();
    assert!(found.again && !found.complete && found.news.is_empty());
    let path = fixture.young("a.yaml", &LABELLED.replace("a: b", "a: b, c: d"));
    fixture.now += STILL / 2;
    assert!(fixture.look().again, "it has changed again");
    assert_eq!(labels(&fixture.look_later().news), [2]);

    fixture.young("a.yaml", LABELLED);
    let closed = BTreeSet::from([path]);
    let found = fixture.scan.look(&closed, fixture.now);
    assert!(!found.again);
    assert_eq!(labels(&found.news), [1]);
}

#[test]
fn a_folder_that_cannot_be_listed_loses_nothing() {
    let mut fixture = Fixture::new();
    fixture.old("team/a.yaml", NAMESPACE);
    assert_eq!(labels(&fixture.look().news), [0]);
    // One of the ways to be unlistable that a test run by root can have.
    let objects = fixture.path("");
    let away = fixture.folder.path().join("away");
    fs::rename(&objects, &away).unwrap();
    for _ in 0..3 {
        let found = fixture.look_later();
        assert!(found.news.is_empty() && !found.complete);
        assert!(found.faults.iter().any(|fault| fault.contains("cannot be listed")), "{:?}", found.faults);
    }
    fs::rename(&away, &objects).unwrap();
    let found = fixture.look_later();
    assert!(found.news.is_empty() && found.complete && found.faults.is_empty());
    fs::remove_dir_all(fixture.path("team")).unwrap();
    fixture.look();
    assert_eq!(fixture.look_later().news, [News::NamespaceGone { name: "shop".into() }]);
}

#[test]
fn a_status_folder_that_was_there_has_to_be_there() {
    let mut fixture = Fixture::new();
    assert!(fixture.look().complete, "it may be made later");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: a}\nspec: {containers: []}\n";
    fixture.old("a.yaml", pod);
    let seen = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: a, uid: u1}\nspec: {nodeName: n1}\n";
    fixture.young("status/a-kubelet/shop_a.yaml", seen);
    fixture.old("status/b-agent-n1/shop_a.yaml", "ours, not read");
    let found = fixture.look();
    assert!(matches!(&found.news[..], [News::Pod(pod)] if pod.uid == "u1"), "{:?} {:?}", found.news, found.faults);
    fs::remove_dir_all(fixture.path("status")).unwrap();
    fixture.look();
    let found = fixture.look_later();
    assert!(found.news.is_empty() && found.faults.len() == 1, "{:?}", found.faults);
}

#[test]
fn an_observation_that_says_too_much_leaves_the_last_good_one() {
    let mut fixture = Fixture::new();
    fixture.old("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: a}\nspec: {containers: []}\n");
    let seen = "apiVersion: v1\nkind: Pod\nmetadata: {namespace: shop, name: a, uid: u1}\nspec: {nodeName: n1}\n";
    fixture.old("status/k/shop_a.yaml", seen);
    assert_eq!(fixture.look().news.len(), 1);
    fixture.old("status/k/shop_a.yaml", &seen.replace("nodeName: n1", "hostNetwork: true, nodeName: n1"));
    let found = fixture.look();
    assert!(found.news.is_empty());
    assert!(found.faults.iter().any(|fault| fault.contains("spec.hostNetwork")), "{:?}", found.faults);
}

#[test]
fn pipes_and_links_in_circles_hold_nothing_up() {
    let mut fixture = Fixture::new();
    fixture.old("a.yaml", NAMESPACE);
    nix::unistd::mkfifo(&fixture.path("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink(fixture.path("self.yaml"), fixture.path("self.yaml")).unwrap();
    // Two ways at each of many steps: more paths than anybody can walk.
    for step in 0..15 {
        fs::create_dir(fixture.path(&format!("d{step}"))).unwrap();
    }
    for step in 0..15 {
        for way in 0..4 {
            let next = fixture.path(&format!("d{}", (step + 1) % 15));
            symlink(next, fixture.path(&format!("d{step}/{way}"))).unwrap();
        }
    }
    fixture.look();
    let found = fixture.look_later();
    assert_eq!(fixture.scan.objects.documents.len(), 1);
    assert!(found.complete, "{:?}", found.faults);
    assert!(found.faults.iter().all(|fault| fault.contains("regular")) && found.faults.len() == 1);
}

#[tokio::test]
async fn changes_are_told_as_they_happen() {
    let fixture = Fixture::new();
    let path = fixture.path("a.yaml");
    fs::write(&path, NAMESPACE).unwrap();
    let (sender, mut news) = mpsc::channel(8);
    let watching = fixture.scan.directory.clone().run(sender);
    tokio::pin!(watching);
    let next = async |watching: &mut std::pin::Pin<&mut _>, news: &mut mpsc::Receiver<News>| {
        tokio::select! {
            item = news.recv() => item.unwrap(),
            _ = watching => panic!("the watch ended"),
            () = tokio::time::sleep(Duration::from_secs(10)) => panic!("no news"),
        }
    };
    assert!(matches!(next(&mut watching, &mut news).await, News::Namespace(_)));
    assert_eq!(next(&mut watching, &mut news).await, News::Synced);
    fs::write(&path, LABELLED).unwrap();
    let News::Namespace(namespace) = next(&mut watching, &mut news).await else { panic!("another") };
    assert_eq!(namespace.labels["a"], "b");
    fs::remove_file(&path).unwrap();
    assert_eq!(next(&mut watching, &mut news).await, News::NamespaceGone { name: "shop".into() });
}

#[test]
fn only_what_was_closed_or_renamed_and_not_written_since_is_whole() {
    let changes = Changes::default();
    let path = PathBuf::from("/x/a.yaml");
    let tell = |kind| changes.hear(Ok(notify::Event::new(kind).add_path(path.clone())));
    tell(EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any)));
    assert!(changes.take().is_empty());
    tell(EventKind::Access(AccessKind::Close(AccessMode::Write)));
    tell(EventKind::Access(AccessKind::Open(AccessMode::Any)));
    assert_eq!(changes.take().len(), 1);
    tell(EventKind::Modify(ModifyKind::Name(RenameMode::To)));
    tell(EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any)));
    assert!(changes.take().is_empty());
}
