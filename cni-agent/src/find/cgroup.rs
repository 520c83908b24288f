// SPDX-License-Identifier: Apache-2.0
//! Reads the pod's UID out of `/proc/<pid>/cgroup`, whatever the cgroup version, the cgroup driver and the container runtime. Pure.

/// The lines of one file name different pods: nothing can be said about such a process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its control groups name two pods, {first} and {second}")]
pub struct Contradiction {
    /// One.
    pub first: String,
    /// The other.
    pub second: String,
}

/// The UID of the pod whose container the process is in, with hyphens between its parts; `None` for a process of the node.
///
/// Taken as the kubelet writes it: `pod`, the UID with any separator or none, and behind it the container's id as the last part of the path. Where pods
/// are nested (a node that is itself a container), the innermost counts.
///
/// # Errors
/// When two lines name different pods.
pub fn pod_uid(cgroups: &str) -> Result<Option<String>, Contradiction> {
    let mut found: Option<String> = None;
    // Each line is `hierarchy:controllers:path`.
    for path in cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        let Some(uid) = uid_in_path(path) else { continue };
        match found {
            Some(first) if first != uid => return Err(Contradiction { first, second: uid }),
            _ => found = Some(uid),
        }
    }
    Ok(found)
}

fn uid_in_path(path: &str) -> Option<String> {
    let path = path.strip_suffix(".scope").unwrap_or(path).as_bytes();
    let starts = (0..path.len()).rev();
    starts.filter(|start| path[*start].is_ascii_punctuation()).find_map(|start| {
        let (uid, behind) = uid(path[start + 1..].strip_prefix(b"pod")?)?;
        is_container(behind).then_some(uid)
    })
}

/// Takes a UID off the front: 8, 4, 4, 4 and 12 hexadecimal digits, one separator of any kind or none between them.
fn uid(text: &[u8]) -> Option<(String, &[u8])> {
    let mut uid = String::with_capacity(36);
    let mut rest = text;
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 && rest.first().is_some_and(u8::is_ascii_punctuation) {
            uid.push('-');
            rest = &rest[1..];
        }
        let (digits, behind) = rest.split_at_checked(length)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        uid.extend(digits.iter().map(|digit| char::from(digit.to_ascii_lowercase())));
        rest = behind;
    }
    Some((uid, rest))
}

/// A separator, and then parts with single separators between them, of which the last is the container's id.
fn is_container(behind: &[u8]) -> bool {
    let Some((first, parts)) = behind.split_first() else { return false };
    first.is_ascii_punctuation() && parts.split(u8::is_ascii_punctuation).all(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

    #[test]
    fn the_uid_is_found_whatever_names_the_group() {
        let id = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
        for path in [
            format!("/kubepods/besteffort/pod{UID}/{id}"),
            format!("/kubepods/pod{UID}/{id}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/docker-{id}.scope",
                UID.replace('-', "_")
            ),
            format!("/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{id}.scope", UID.replace('-', "_")),
            format!("/kubepods.slice/kubepods-pod{}.slice/crio-{id}.scope", UID.replace('-', "_")),
            format!("/docker/{id}/kubelet/kubepods/burstable/pod{UID}/{id}"),
            format!(
                "/system.slice/containerd.service/kubepods-besteffort-pod{}.slice:cri-containerd:{id}",
                UID.replace('-', "_")
            ),
        ] {
            assert_eq!(pod_uid(&format!("0::{path}\n")), Ok(Some(UID.to_owned())), "{path}");
            assert_eq!(
                pod_uid(&format!("12:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/\n")),
                Ok(Some(UID.to_owned())),
                "{path}"
            );
        }
    }

    #[test]
    fn a_static_pod_s_uid_has_no_separators() {
        let hash = UID.replace('-', "");
        assert_eq!(pod_uid(&format!("0::/kubepods/pod{hash}/abc")), Ok(Some(hash)));
    }

    #[test]
    fn processes_of_the_node_belong_to_no_pod() {
        for path in [
            "/",
            "/init.scope",
            "/system.slice/kubelet.service",
            "/kubepods.slice",
            &format!("/kubepods/pod{UID}"),
            &format!("/kubepods/pod{UID}/"),
            &format!("/kubepods/pod{UID}//x"),
            "/kubepods/podcast/abc",
            "/kubepods/pod2c48913c-b29f-11e7-9350-02096814779z/abc",
            &format!("pod{UID}/abc"),
        ] {
            assert_eq!(pod_uid(&format!("0::{path}")), Ok(None), "{path}");
        }
    }

    #[test]
    fn the_innermost_pod_counts() {
        let inner = UID.replace('2', "3");
        assert_eq!(pod_uid(&format!("0::/kubepods/pod{UID}/abc/kubelet/kubepods/pod{inner}/def")), Ok(Some(inner)));
    }

    #[test]
    fn lines_that_contradict_each_other_are_an_error() {
        let other = UID.replace('2', "3");
        let said = pod_uid(&format!("2:cpu:/kubepods/pod{UID}/abc\n1:memory:/kubepods/pod{other}/abc"));
        assert_eq!(said, Err(Contradiction { first: UID.to_owned(), second: other }));
    }

    proptest! {
        #[test]
        fn any_text_ends_without_a_panic(text in "\\PC{0,200}") {
            let _ = pod_uid(&text);
        }

        #[test]
        fn any_text_around_a_pod_s_path_leaves_its_uid_whole(
            before in "(/[a-z]{1,8}){0,3}", uid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", id in "[0-9a-f]{1,64}", driver in "[-_]",
        ) {
            let path = format!("0::{before}/kubepods{driver}pod{}/x{driver}{id}", uid.replace('-', &driver));
            prop_assert_eq!(pod_uid(&path), Ok(Some(uid)));
        }
    }
}
