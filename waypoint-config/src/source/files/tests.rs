// SPDX-License-Identifier: Apache-2.0
//! The directory on a real disk. The rules without a disk are tested at `document`, `ledger` and `patience`.

use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;
use tokio::{runtime::Builder, time::timeout};

use super::*;
use crate::{
    api::{Key, Kind, Object},
    store::Change,
};

/// The directory under test and everything its source has said so far.
struct World {
    directory: TempDir,
    batches: mpsc::Receiver<Batch>,
    objects: BTreeMap<Key, Object>,
    faults: Vec<String>,
}

impl World {
    async fn start(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (out, batches) = mpsc::channel(16);
        let options = Options::new(directory.path());
        #[allow(clippy::disallowed_methods)] // A test has no lifecycle; the task ends with the runtime.
        tokio::spawn(Directory::open(options).unwrap().run(out));
        let mut world = Self { directory, batches, objects: BTreeMap::new(), faults: Vec::new() };
        assert!(world.next().await.synced);
        world
    }

    async fn next(&mut self) -> Batch {
        let batch = timeout(Duration::from_secs(20), self.batches.recv())
            .await
            .expect("no batch came")
            .expect("the source ended");
        for change in &batch.changes {
            match change {
                Change::Put(object) => _ = self.objects.insert(object.key(), object.clone()),
                Change::Delete(key) => _ = self.objects.remove(key),
            }
        }
        self.faults = batch.faults.iter().map(ToString::to_string).collect();
        batch
    }

    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            self.next().await;
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As programs should write.
    fn rename_into_place(&self, name: &str, text: &str) {
        let draft = self.path(".draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path(name)).unwrap();
    }

    fn namespaces(&self) -> Vec<&str> {
        self.objects.keys().filter(|key| key.kind == Kind::Namespace).map(|key| &*key.name).collect()
    }

    fn pod(&self, name: &str) -> &k8s_openapi::api::core::v1::Pod {
        match self.objects.get(&Key::new(Kind::Pod, "demo", name)) {
            Some(Object::Pod(pod)) => pod,
            other => panic!("no pod {name}: {other:?}"),
        }
    }
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n")
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: demo, name: {name}}}\nspec: {{nodeName: n1, containers: []}}\n---\n"
    )
}

fn on_disk(test: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn files_are_read_in_folders_and_through_links_but_not_hidden_ones() {
    on_disk(async {
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("far.yaml"), namespace("far")).unwrap();
        let mut world = World::start(&[
            ("a.yaml", &namespace("a")),
            ("deep/er/b.yml", &namespace("b")),
            ("c.json", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}"#),
            (".hidden.yaml", &namespace("hidden")),
            ("notes.txt", "not ours"),
            ("d.yaml~", &namespace("backup")),
        ])
        .await;
        assert_eq!(world.namespaces(), ["a", "b", "c"]);
        symlink(elsewhere.path(), world.path("link")).unwrap();
        // Up and round again: must end.
        symlink(world.directory.path(), world.path("deep/loop")).unwrap();
        world.until(|world| world.namespaces().contains(&"far")).await;
        assert_eq!(world.namespaces(), ["a", "b", "c", "far"]);
    });
}

#[test]
fn a_file_that_is_written_again_is_noticed_at_once() {
    on_disk(async {
        let mut world = World::start(&[("a.yaml", &namespace("a"))]).await;
        let start = Instant::now();
        world.rename_into_place("b.yaml", &namespace("b"));
        world.until(|world| world.namespaces() == ["a", "b"]).await;
        fs::write(world.path("c.yaml"), namespace("c")).unwrap();
        world.until(|world| world.namespaces() == ["a", "b", "c"]).await;
        assert!(start.elapsed() < Duration::from_millis(1500), "took {:?}: found by the rescan only?", start.elapsed());
    });
}

#[test]
fn a_deleted_file_takes_its_objects_with_it() {
    on_disk(async {
        let mut world = World::start(&[("a.yaml", &namespace("a")), ("b.yaml", &namespace("b"))]).await;
        fs::remove_file(world.path("a.yaml")).unwrap();
        world.until(|world| world.namespaces() == ["b"]).await;
    });
}

#[test]
fn a_file_truncated_for_a_moment_costs_nothing() {
    on_disk(async {
        let mut world = World::start(&[("a.yaml", &(namespace("a") + &namespace("b")))]).await;
        for round in 0..20 {
            // Truncated, closed, written again a little later: as a shell's `>` does it.
            fs::write(world.path("a.yaml"), "").unwrap();
            sleep(Duration::from_millis(20)).await;
            fs::remove_file(world.path("a.yaml")).unwrap();
            sleep(Duration::from_millis(20)).await;
            fs::write(world.path("a.yaml"), namespace("a") + &namespace("b") + &namespace(&format!("n{round}")))
                .unwrap();
        }
        let mut deleted = Vec::new();
        while !world.namespaces().contains(&"n19") {
            deleted.extend(
                world
                    .next()
                    .await
                    .changes
                    .into_iter()
                    .filter(|change| matches!(change, Change::Delete(key) if &*key.name == "a" || &*key.name == "b")),
            );
        }
        assert_eq!(deleted, [], "an object was gone for a moment");
    });
}

#[test]
fn a_half_written_file_waits_for_its_writer() {
    use std::io::Write;
    on_disk(async {
        let mut world = World::start(&[("a.yaml", &namespace("a"))]).await;
        let mut file = fs::File::create(world.path("p.yaml")).unwrap();
        let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {namespace: demo, name: p}\nspec: {action: DENY, rules: [{}]}\n";
        // All of it but the rules: valid, and a DENY that denies nothing.
        file.write_all(text.split_once(", rules").unwrap().0.as_bytes()).unwrap();
        file.flush().unwrap();
        sleep(Duration::from_millis(500)).await;
        file.write_all(b", rules: [{}]}\n").unwrap();
        drop(file);
        world.until(|world| world.objects.len() == 2).await;
        assert_eq!(world.faults, [""; 0]);
        let Some(Object::AuthorizationPolicy(policy)) =
            world.objects.get(&Key::new(Kind::AuthorizationPolicy, "demo", "p"))
        else {
            panic!("no policy")
        };
        assert_eq!(policy.spec.rules.len(), 1);
    });
}

#[test]
fn a_mounted_config_map_changes_as_one() {
    on_disk(async {
        let mut world = World::start(&[("..1/a.yaml", &namespace("a")), ("..1/b.yaml", &namespace("b"))]).await;
        assert_eq!(world.namespaces(), [""; 0]);
        symlink("..1", world.path("..data")).unwrap();
        symlink("..data/a.yaml", world.path("a.yaml")).unwrap();
        symlink("..data/b.yaml", world.path("b.yaml")).unwrap();
        world.until(|world| world.namespaces() == ["a", "b"]).await;
        // As the kubelet does it: a new folder, a new link over the old one.
        fs::create_dir(world.path("..2")).unwrap();
        fs::write(world.path("..2/a.yaml"), namespace("a") + &namespace("c")).unwrap();
        fs::write(world.path("..2/b.yaml"), namespace("b")).unwrap();
        symlink("..2", world.path("..data_tmp")).unwrap();
        fs::rename(world.path("..data_tmp"), world.path("..data")).unwrap();
        fs::remove_dir_all(world.path("..1")).unwrap();
        world.until(|world| world.namespaces() == ["a", "b", "c"]).await;
        assert_eq!(world.faults, [""; 0]);
    });
}

#[test]
fn an_observation_arrives_and_is_withdrawn() {
    on_disk(async {
        let mut world = World::start(&[("pods.yaml", &(pod("x") + &pod("y")))]).await;
        fs::create_dir_all(world.path("status/b-agent-n1")).unwrap();
        let seen = "{apiVersion: v1, kind: Pod, metadata: {namespace: demo, name: x, annotations: {ambient.istio.io/redirection: enabled}}}";
        world.rename_into_place("status/b-agent-n1/demo_x.yaml", seen);
        world.until(|world| world.pod("x").metadata.annotations.is_some()).await;
        assert_eq!(world.pod("y").metadata.annotations, None);
        fs::remove_file(world.path("status/b-agent-n1/demo_x.yaml")).unwrap();
        world.until(|world| world.pod("x").metadata.annotations.is_none()).await;
    });
}

#[test]
fn what_is_no_file_is_reported_and_holds_up_nothing() {
    on_disk(async {
        let mut world = World::start(&[("a.yaml", &namespace("a"))]).await;
        nix::unistd::mkfifo(&world.path("pipe.yaml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let huge = fs::File::create(world.path("huge.yaml")).unwrap();
        huge.set_len(crate::source::MAX_FILE_BYTES + 1).unwrap();
        drop(huge);
        fs::write(world.path("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
        world.rename_into_place("b.yaml", &namespace("b"));
        world.until(|world| world.faults.len() == 3 && world.namespaces() == ["a", "b"]).await;
        let faults = world.faults.join("\n");
        assert!(faults.contains("pipe.yaml: cannot be read: it is not a regular file (not taken in)"), "{faults}");
        assert!(faults.contains("huge.yaml: is larger than"), "{faults}");
        assert!(faults.contains("binary.yaml: is not UTF-8"), "{faults}");
    });
}

#[test]
fn a_directory_that_is_taken_away_and_given_back_is_read_again() {
    on_disk(async {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("mesh");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("a.yaml"), namespace("a")).unwrap();
        let (out, batches) = mpsc::channel(16);
        #[allow(clippy::disallowed_methods)] // As above.
        tokio::spawn(
            Directory::open(Options { rescan: Duration::from_millis(100), ..Options::new(&inner) }).unwrap().run(out),
        );
        let mut world = World { directory: outer, batches, objects: BTreeMap::new(), faults: Vec::new() };
        world.until(|world| world.namespaces() == ["a"]).await;
        fs::rename(&inner, world.path("away")).unwrap();
        world.until(|world| !world.faults.is_empty()).await;
        assert_eq!(world.namespaces(), ["a"], "an unreadable directory says nothing about its objects");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("b.yaml"), namespace("b")).unwrap();
        world.until(|world| world.namespaces() == ["b"] && world.faults.is_empty()).await;
    });
}

#[test]
fn files_of_somebody_else_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let ignored = directory.path().join("jwks.json");
    fs::write(&ignored, r#"{"keys": []}"#).unwrap();
    let mut desk = Desk::new(Options { ignored: vec![ignored], ..Options::new(directory.path()) });
    let batch = desk.round(Instant::now(), BTreeMap::new()).expect("the first look always says something");
    assert!(batch.synced && batch.faults.is_empty(), "{:?}", batch.faults);
}

#[test]
fn no_directory_is_an_error_that_names_it() {
    let error = Directory::open(Options::new("/nowhere/at/all")).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/at/all is not a directory"), "{error}");
}
