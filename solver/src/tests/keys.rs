//! Golden keys: one op of each kind, with its bytes' digests and what the explainer keeps.

use std::fmt::Write as _;

use kiln_ir::*;

use crate::explainer::Explainer;
use crate::hasher::Hasher;
use crate::keywriter::{KeyInput, KeyWriter, write_op};
use crate::{ContentId, DefinitionKey, Origin, PinnedSource, SelectionDigest, StepName};

fn ops() -> Vec<(&'static str, Op)> {
    let exec = ExecOp {
        meta: Meta {
            args: vec!["/bin/sh".into(), "-c".into(), "make".into()],
            env: vec!["PATH=/bin".into(), "MODE=fast".into()],
            cwd: "/src".into(),
            user: "build".into(),
            hostname: "box".into(),
            ulimits: vec![Ulimit {
                name: "nofile".into(),
                soft: 1024,
                hard: -1,
            }],
            extra_hosts: vec![HostIp {
                host: "db".into(),
                ip: "10.0.0.1".into(),
            }],
            valid_exit_codes: vec![0, 7],
            ..Meta::default()
        },
        mounts: vec![
            Mount {
                target: "/".into(),
                input: Some(0),
                output: Some(0),
                ..Mount::default()
            },
            Mount {
                target: "/cache".into(),
                kind: MountKind::Cache {
                    id: "go".into(),
                    sharing: CacheSharing::Locked,
                },
                ..Mount::default()
            },
            Mount {
                target: "/run/secrets/token".into(),
                kind: MountKind::Secret(SecretOpt {
                    id: "token".into(),
                    mode: 0o400,
                    ..SecretOpt::default()
                }),
                ..Mount::default()
            },
        ],
        network: NetworkMode::None,
        security: SecurityMode::Insecure,
        ..ExecOp::default()
    };
    let action = |kind| FileAction {
        input: ActionInput::Input(0),
        secondary: ActionInput::Scratch,
        output: Some(0),
        kind,
    };
    let copy = FileActionKind::Copy(CopyAction {
        src: "/app".into(),
        dest: "/srv/".into(),
        owner: Some(Owner {
            user: Some(UserRef::Name {
                name: "www".into(),
                input: ActionInput::Input(0),
            }),
            group: Some(UserRef::Id(33)),
        }),
        create_dest_path: true,
        ..CopyAction::default()
    });
    let mkfile = FileActionKind::Mkfile(MkfileAction {
        path: "/etc/x".into(),
        mode: 0o644,
        data: b"x\n".to_vec(),
        ..MkfileAction::default()
    });
    let mkdir = FileActionKind::Mkdir(MkdirAction {
        path: "/var/x".into(),
        mode: 0o755,
        make_parents: true,
        ..MkdirAction::default()
    });
    let rm = FileActionKind::Rm(RmAction {
        path: "/tmp/*".into(),
        allow_wildcard: true,
        ..RmAction::default()
    });
    let link = FileActionKind::Symlink(SymlinkAction {
        target: "x".into(),
        path: "/etc/y".into(),
        ..SymlinkAction::default()
    });
    let actions = [copy, mkfile, mkdir, rm, link].map(action).to_vec();
    vec![
        (
            "image",
            Op::Source(SourceOp::Image(ImageSource {
                reference: "docker.io/library/alpine:latest".into(),
                layer_limit: Some(2),
                ..ImageSource::default()
            })),
        ),
        (
            "oci-layout",
            Op::Source(SourceOp::OciLayout(OciLayoutSource::default())),
        ),
        ("local", Op::Source(SourceOp::Local(LocalSource::default()))),
        (
            "git",
            Op::Source(SourceOp::Git(GitSource {
                remote: "example.org/a.git".into(),
                subdir: "sub".into(),
                keep_git_dir: true,
                ..GitSource::default()
            })),
        ),
        (
            "http",
            Op::Source(SourceOp::Http(HttpSource {
                url: "https://example.org/a/b.tar?x=1".into(),
                perm: Some(0o600),
                ..HttpSource::default()
            })),
        ),
        (
            "blob",
            Op::Source(SourceOp::Blob(BlobSource {
                filename: Some("f".into()),
                ..BlobSource::default()
            })),
        ),
        ("exec", Op::Exec(exec)),
        ("file", Op::File(FileOp { actions })),
        (
            "merge",
            Op::Merge(MergeOp {
                inputs: vec![Some(0), None],
            }),
        ),
        (
            "diff",
            Op::Diff(DiffOp {
                lower: None,
                upper: Some(0),
            }),
        ),
        (
            "build",
            Op::Build(BuildOp {
                builder: Some(0),
                definition: Some(b"definition".to_vec()),
                ..BuildOp::default()
            }),
        ),
        (
            "passthrough",
            Op::Passthrough(PassthroughOp {
                id: "a".into(),
                outputs: vec![0],
            }),
        ),
    ]
}

fn node(op: &Op) -> Node {
    let linux = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        ..Platform::default()
    };
    let has_platform = matches!(
        op,
        Op::Exec(_) | Op::Source(SourceOp::Image(_) | SourceOp::OciLayout(_))
    );
    Node {
        op: op.clone(),
        inputs: Vec::new(),
        platform: has_platform.then_some(linux),
    }
}

fn write_all(op: &Op, to: &mut impl KeyWriter, content: bool) {
    let pinned = PinnedSource {
        reference: "alpine:latest".into(),
        pin: "sha256:00".into(),
        base: true,
    };
    let selected = SelectionDigest {
        digest: [3; 32],
        tree: None,
        summary: String::new(),
    };
    write_op(&node(op), to);
    if matches!(op, Op::Source(_)) {
        to.identity(b"identity", &pinned);
    } else if content {
        to.input(
            0,
            &KeyInput::Layers(&[ContentId::DiffId([1; 32]), ContentId::Layer([2; 32])]),
        );
        to.input(1, &KeyInput::Selected(&selected));
    } else {
        let from = Origin::Step(StepName::default());
        let key = DefinitionKey([4; 32]);
        to.input(
            0,
            &KeyInput::Definition {
                key,
                output: 1,
                from: &from,
            },
        );
        to.input(
            1,
            &KeyInput::Files {
                source: "context",
                selected: &selected,
            },
        );
    }
}

#[test]
fn keys_of_every_kind_of_op_are_what_they_were() {
    let mut golden = String::new();
    for (name, op) in ops() {
        let mut definition = Hasher::definition();
        write_all(&op, &mut definition, false);
        let mut content = Hasher::content();
        write_all(&op, &mut content, true);
        let mut alone = Hasher::op();
        write_op(&node(&op), &mut alone);
        let mut explainer = Explainer::new(&|name| name == "MODE");
        write_all(&op, &mut explainer, false);
        let _ = writeln!(golden, "{name}");
        let _ = writeln!(golden, "  definition {}", definition.into_definition());
        let _ = writeln!(golden, "  content    {}", content.into_content());
        let _ = writeln!(golden, "  op         {}", alone.into_op());
        for part in explainer.into_parts() {
            let _ = writeln!(golden, "  {part:?}");
        }
    }
    insta::assert_snapshot!(golden);
}

#[test]
fn key_bytes_are_what_they_were() {
    let op = Op::Merge(MergeOp {
        inputs: vec![Some(0), None],
    });
    let mut bytes = Hasher::bytes();
    write_all(&op, &mut bytes, false);
    insta::assert_snapshot!(crate::content::Hex(&bytes.into_bytes()));
}

/// The key of an exec op after a change to it.
fn exec_key(change: impl FnOnce(&mut ExecOp)) -> DefinitionKey {
    let (_, op) = ops().into_iter().find(|(name, _)| *name == "exec").unwrap();
    let Op::Exec(mut exec) = op else {
        unreachable!()
    };
    change(&mut exec);
    let mut hasher = Hasher::definition();
    write_all(&Op::Exec(exec), &mut hasher, false);
    hasher.into_definition()
}

#[test]
fn what_is_in_no_key_changes_none() {
    let key = exec_key(|_| {});
    assert_eq!(
        key,
        exec_key(|exec| exec.meta.extra_hosts[0].ip = "10.0.0.2".into())
    );
    assert_eq!(
        key,
        exec_key(|exec| exec.meta.proxy = Some(ProxyEnv {
            http: "http://p".into(),
            ..ProxyEnv::default()
        }))
    );
    assert_eq!(key, exec_key(|exec| exec.meta.cgroup_parent = "/x".into()));
    assert_eq!(
        key,
        exec_key(|exec| {
            exec.mounts[1].kind = MountKind::Cache {
                id: "other".into(),
                sharing: CacheSharing::Shared,
            };
        })
    );
    assert_eq!(
        key,
        exec_key(|exec| exec.mounts[0].content_cache = ContentCache::Off)
    );
}

fn secret_env(id: &str, name: &str) -> SecretEnv {
    SecretEnv {
        id: id.into(),
        name: name.into(),
        optional: true,
    }
}

#[test]
fn what_is_in_the_key_changes_it() {
    let changes: [fn(&mut ExecOp); 18] = [
        |_| {},
        |exec| exec.meta.args.push("x".into()),
        |exec| exec.meta.env.push("X=1".into()),
        |exec| exec.meta.cwd = "/".into(),
        |exec| exec.meta.user = String::new(),
        |exec| exec.meta.hostname = String::new(),
        |exec| exec.meta.ulimits.clear(),
        |exec| exec.meta.extra_hosts[0].host = "other".into(),
        |exec| exec.meta.valid_exit_codes.clear(),
        |exec| exec.network = NetworkMode::Default,
        |exec| exec.network = NetworkMode::Host,
        |exec| exec.security = SecurityMode::Sandbox,
        |exec| exec.mounts[2].kind = MountKind::Secret(SecretOpt::default()),
        |exec| exec.mounts[2].kind = MountKind::Ssh(SecretOpt::default()),
        |exec| exec.secret_env.push(secret_env("token", "TOKEN")),
        |exec| exec.secret_env.push(secret_env("other", "TOKEN")),
        |exec| exec.secret_env.push(secret_env("token", "OTHER")),
        |exec| exec.mounts[2].target = "/elsewhere".into(),
    ];
    let keys: std::collections::BTreeSet<_> =
        changes.iter().map(|change| exec_key(change)).collect();
    assert_eq!(keys.len(), changes.len());
}

#[test]
fn moving_a_boundary_changes_the_key() {
    assert_ne!(
        exec_key(|exec| exec.meta.args = vec!["ab".into(), "c".into()]),
        exec_key(|exec| exec.meta.args = vec!["a".into(), "bc".into()]),
    );
}
