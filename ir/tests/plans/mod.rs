//! Random valid plans, with every field of every op in play.

use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::*;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

pub(crate) fn text() -> BoxedStrategy<String> {
    prop_oneof![
        4 => "[a-z0-9/._:@-]{0,10}",
        1 => "(scratch(:[a-z]{0,3})?|none|default|ro|->|@1|%0|# x|platform=x)",
        2 => ".{0,6}",
        1 => Just("\"\\\n\t\u{202e}\u{7f} {}[];,=".to_owned()),
    ]
    .boxed()
}

fn texts() -> BoxedStrategy<Vec<String>> {
    vec(text(), 0..3).boxed()
}

fn map() -> BoxedStrategy<BTreeMap<String, String>> {
    btree_map(text(), text(), 0..3).boxed()
}

fn platform() -> BoxedStrategy<Platform> {
    prop_oneof![
        Just(Platform::linux("amd64")),
        Just(Platform::parse("linux/arm/v7").unwrap()),
        (text(), text(), text(), text(), texts()).prop_map(
            |(os, architecture, variant, os_version, os_features)| {
                Platform {
                    os,
                    architecture,
                    variant,
                    os_version,
                    os_features,
                }
            }
        ),
    ]
    .boxed()
}

fn source() -> BoxedStrategy<SourceOp> {
    let image = (
        text(),
        0..3,
        0..3,
        option::of(any::<u32>()),
        option::of(text()),
        map(),
    )
        .prop_map(|(reference, mode, record, layer_limit, checksum, attrs)| {
            let resolve_mode =
                [ResolveMode::Default, ResolveMode::Pull, ResolveMode::Local][mode as usize];
            let record_type = [
                RecordType::Regular,
                RecordType::Internal,
                RecordType::Frontend,
            ][record as usize];
            SourceOp::Image(ImageSource {
                reference,
                resolve_mode,
                record_type,
                layer_limit,
                checksum,
                attrs,
            })
        });
    let local = (
        (
            text(),
            texts(),
            texts(),
            option::of(text()),
            option::of(text()),
            option::of(text()),
        ),
        (0..3, any::<bool>(), texts(), map()),
    )
        .prop_map(
            |((name, exclude, follow_paths, session, unique, shared_key_hint), rest)| {
                let (differ, metadata_transfer, metadata_transfer_exclude, attrs) = rest;
                let differ = [Differ::Default, Differ::None, Differ::Metadata][differ as usize];
                SourceOp::Local(LocalSource {
                    name,
                    exclude,
                    follow_paths,
                    session,
                    unique,
                    shared_key_hint,
                    differ,
                    metadata_transfer,
                    metadata_transfer_exclude,
                    attrs,
                })
            },
        );
    let git = (
        (
            text(),
            text(),
            text(),
            option::of(text()),
            option::of(text()),
            option::of(text()),
            option::of(text()),
        ),
        (
            any::<[bool; 4]>(),
            option::of(text()),
            option::of(text()),
            map(),
        ),
    )
        .prop_map(
            |(
                (remote, reference, subdir, full_url, checksum, token, header),
                (flags, hosts, sock, attrs),
            )| {
                SourceOp::Git(GitSource {
                    remote,
                    reference,
                    subdir,
                    full_url,
                    keep_git_dir: flags[0],
                    skip_submodules: flags[1],
                    checksum,
                    mtime_from_commit: flags[2],
                    fetch_by_commit: flags[3],
                    auth_token_secret: token,
                    auth_header_secret: header,
                    known_ssh_hosts: hosts,
                    mount_ssh_sock: sock,
                    attrs,
                })
            },
        );
    let ids = || {
        (
            option::of(any::<u32>()),
            option::of(any::<u32>()),
            option::of(any::<u32>()),
        )
    };
    let http = (
        (
            text(),
            option::of(text()),
            option::of(text()),
            option::of(text()),
        ),
        ids(),
        map(),
        map(),
    )
        .prop_map(
            |((url, checksum, filename, auth_header_secret), (perm, uid, gid), headers, attrs)| {
                SourceOp::Http(HttpSource {
                    url,
                    checksum,
                    filename,
                    perm,
                    uid,
                    gid,
                    auth_header_secret,
                    headers,
                    attrs,
                })
            },
        );
    let layout = (
        text(),
        option::of(text()),
        option::of(text()),
        option::of(any::<u32>()),
        map(),
    )
        .prop_map(|(reference, session, store, layer_limit, attrs)| {
            SourceOp::OciLayout(OciLayoutSource {
                reference,
                session,
                store,
                layer_limit,
                attrs,
            })
        });
    let blob = (
        (
            text(),
            any::<bool>(),
            option::of(text()),
            option::of(text()),
            option::of(text()),
        ),
        ids(),
        map(),
    )
        .prop_map(
            |((reference, oci_layout, session, store, filename), (perm, uid, gid), attrs)| {
                SourceOp::Blob(BlobSource {
                    reference,
                    oci_layout,
                    session,
                    store,
                    filename,
                    perm,
                    uid,
                    gid,
                    attrs,
                })
            },
        );
    prop_oneof![
        image.boxed(),
        local.boxed(),
        git.boxed(),
        http.boxed(),
        layout.boxed(),
        blob.boxed()
    ]
    .boxed()
}

fn meta() -> BoxedStrategy<Meta> {
    let proxy =
        (text(), text(), text(), text(), text()).prop_map(|(http, https, ftp, no, all)| ProxyEnv {
            http,
            https,
            ftp,
            no,
            all,
        });
    let hosts = vec(
        (text(), text()).prop_map(|(host, ip)| HostIp { host, ip }),
        0..2,
    );
    let limits = vec(
        (text(), any::<i64>(), any::<i64>()).prop_map(|(name, soft, hard)| Ulimit {
            name,
            soft,
            hard,
        }),
        0..2,
    );
    (
        (texts(), texts(), text(), text(), option::of(proxy), hosts),
        (
            text(),
            limits,
            text(),
            any::<bool>(),
            vec(any::<i32>(), 0..3),
        ),
    )
        .prop_map(|((args, env, cwd, user, proxy, extra_hosts), rest)| {
            let (hostname, ulimits, cgroup_parent, remove_mount_stubs_recursive, valid_exit_codes) =
                rest;
            Meta {
                args,
                env,
                cwd,
                user,
                proxy,
                extra_hosts,
                hostname,
                ulimits,
                cgroup_parent,
                remove_mount_stubs_recursive,
                valid_exit_codes,
            }
        })
        .boxed()
}

fn secret() -> BoxedStrategy<SecretOpt> {
    (
        text(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<bool>(),
    )
        .prop_map(|(id, uid, gid, mode, optional)| SecretOpt {
            id,
            uid,
            gid,
            mode,
            optional,
        })
        .boxed()
}

fn mount() -> BoxedStrategy<Mount> {
    let kind = prop_oneof![
        4 => Just(MountKind::Bind),
        2 => (text(), 0..3).prop_map(|(id, sharing)| {
            let sharing = [CacheSharing::Shared, CacheSharing::Private, CacheSharing::Locked][sharing as usize];
            MountKind::Cache { id, sharing }
        }),
        1 => any::<u64>().prop_map(|size_bytes| MountKind::Tmpfs { size_bytes }),
        1 => secret().prop_map(MountKind::Secret),
        1 => secret().prop_map(MountKind::Ssh),
    ];
    let (input, output) = (option::of(any::<u32>()), option::of(any::<u32>()));
    (
        text(),
        input,
        text(),
        output,
        any::<bool>(),
        kind,
        0..3,
        text(),
    )
        .prop_map(
            |(target, input, selector, output, readonly, kind, cache, result_id)| {
                let content_cache =
                    [ContentCache::Default, ContentCache::On, ContentCache::Off][cache as usize];
                let target = format!("/m{}", target.replace("..", "").replace('\0', ""));
                Mount {
                    target,
                    input,
                    selector,
                    output,
                    readonly,
                    kind,
                    content_cache,
                    result_id,
                }
            },
        )
        .boxed()
}

fn exec() -> BoxedStrategy<ExecOp> {
    let root = mount().prop_map(|mount| Mount {
        target: "/".to_owned(),
        kind: MountKind::Bind,
        ..mount
    });
    let plain = Just(Mount {
        target: "/".to_owned(),
        input: Some(0),
        output: Some(0),
        ..Mount::default()
    });
    let env = vec(
        (text(), text(), any::<bool>()).prop_map(|(id, name, optional)| SecretEnv {
            id,
            name,
            optional,
        }),
        0..2,
    );
    let devices = vec(
        (text(), any::<bool>()).prop_map(|(name, optional)| Device { name, optional }),
        0..2,
    );
    (
        meta(),
        prop_oneof![root, plain],
        vec(mount(), 0..4),
        any::<prop::sample::Index>(),
        0..3,
        any::<bool>(),
        env,
        devices,
    )
        .prop_map(
            |(meta, root, mut mounts, at, network, insecure, secret_env, devices)| {
                mounts.insert(at.index(mounts.len() + 1), root);
                ExecOp {
                    meta,
                    mounts,
                    network: [NetworkMode::Default, NetworkMode::Host, NetworkMode::None]
                        [network as usize],
                    security: if insecure {
                        SecurityMode::Insecure
                    } else {
                        SecurityMode::Sandbox
                    },
                    secret_env,
                    devices,
                }
            },
        )
        .boxed()
}

fn tree() -> BoxedStrategy<ActionInput> {
    prop_oneof![
        Just(ActionInput::Scratch),
        any::<u32>().prop_map(ActionInput::Input),
        any::<u32>().prop_map(ActionInput::Action),
    ]
    .boxed()
}

fn owner() -> BoxedStrategy<Option<Owner>> {
    let user = || {
        option::of(prop_oneof![
            any::<u32>().prop_map(UserRef::Id),
            (text(), tree()).prop_map(|(name, input)| UserRef::Name { name, input }),
        ])
    };
    option::of((user(), user()).prop_map(|(user, group)| Owner { user, group })).boxed()
}

fn action() -> BoxedStrategy<FileAction> {
    let time = || option::of(any::<i64>());
    let copy = (
        (
            text(),
            text(),
            owner(),
            option::of(any::<u32>()),
            text(),
            any::<[bool; 7]>(),
        ),
        (time(), texts(), texts(), texts()),
    )
        .prop_map(
            |(
                (src, dest, owner, mode, mode_str, flags),
                (timestamp, include, exclude, required),
            )| {
                FileActionKind::Copy(CopyAction {
                    src,
                    dest,
                    owner,
                    mode,
                    mode_str,
                    follow_symlink: flags[0],
                    dir_copy_contents: flags[1],
                    attempt_unpack: flags[2],
                    create_dest_path: flags[3],
                    allow_wildcard: flags[4],
                    allow_empty_wildcard: flags[5],
                    timestamp,
                    include_patterns: include,
                    exclude_patterns: exclude,
                    always_replace_existing_dest_paths: flags[6],
                    required_paths: required,
                })
            },
        );
    let data = prop_oneof![text().prop_map(String::into_bytes), vec(any::<u8>(), 0..6)];
    let mkfile = (text(), any::<u32>(), data, owner(), time()).prop_map(
        |(path, mode, data, owner, timestamp)| {
            FileActionKind::Mkfile(MkfileAction {
                path,
                mode,
                data,
                owner,
                timestamp,
            })
        },
    );
    let mkdir = (text(), any::<u32>(), any::<bool>(), owner(), time()).prop_map(
        |(path, mode, make_parents, owner, timestamp)| {
            FileActionKind::Mkdir(MkdirAction {
                path,
                mode,
                make_parents,
                owner,
                timestamp,
            })
        },
    );
    let rm = (text(), any::<bool>(), any::<bool>()).prop_map(
        |(path, allow_not_found, allow_wildcard)| {
            FileActionKind::Rm(RmAction {
                path,
                allow_not_found,
                allow_wildcard,
            })
        },
    );
    let symlink = (text(), text(), owner(), time()).prop_map(|(target, path, owner, timestamp)| {
        FileActionKind::Symlink(SymlinkAction {
            target,
            path,
            owner,
            timestamp,
        })
    });
    let kind = prop_oneof![
        copy.boxed(),
        mkfile.boxed(),
        mkdir.boxed(),
        rm.boxed(),
        symlink.boxed()
    ]
    .boxed();
    (tree(), tree(), option::of(any::<u32>()), kind)
        .prop_map(|(input, secondary, output, kind)| FileAction {
            input,
            secondary,
            output,
            kind,
        })
        .boxed()
}

fn op() -> BoxedStrategy<Op> {
    prop_oneof![
        4 => source().prop_map(Op::Source),
        4 => exec().prop_map(Op::Exec),
        4 => vec(action(), 0..4).prop_map(|actions| Op::File(FileOp { actions })),
        1 => vec(option::of(any::<u32>()), 0..4).prop_map(|inputs| Op::Merge(MergeOp { inputs })),
        1 => (option::of(any::<u32>()), option::of(any::<u32>())).prop_map(|(lower, upper)| Op::Diff(DiffOp { lower, upper })),
        1 => (option::of(any::<u32>()), btree_map(text(), any::<u32>(), 0..3), option::of(vec(any::<u8>(), 0..4)), map())
            .prop_map(|(builder, inputs, definition, attrs)| Op::Build(BuildOp { builder, inputs, definition, attrs })),
        1 => (text(), vec(any::<u32>(), 0..3)).prop_map(|(id, outputs)| Op::Passthrough(PassthroughOp { id, outputs })),
    ].boxed()
}

/// Makes a valid op of a random one that has `inputs` inputs.
fn fit(mut op: Op, inputs: u32) -> Op {
    let index = |index: Option<u32>| {
        index
            .filter(|_| inputs > 0)
            .map(|index| index % inputs.max(1))
    };
    let tree = |tree: ActionInput, before: usize| match tree {
        ActionInput::Input(number) if inputs > 0 => ActionInput::Input(number % inputs),
        ActionInput::Action(number) if before > 0 => ActionInput::Action(number % before as u32),
        _ => ActionInput::Scratch,
    };
    match &mut op {
        Op::Source(_) => {}
        Op::Exec(op) => {
            let mut outputs = BTreeSet::new();
            let most = op.mounts.len() as u32;
            for mount in &mut op.mounts {
                mount.input = index(mount.input);
                mount.output = mount.output.map(|output| output % most);
                mount.output = mount.output.filter(|output| outputs.insert(*output));
                if mount.kind != MountKind::Bind {
                    mount.output = None;
                }
                if !matches!(mount.kind, MountKind::Bind | MountKind::Cache { .. }) {
                    mount.input = None;
                    mount.selector.clear();
                }
                if mount.output.is_some() && !mount.readonly {
                    mount.content_cache = ContentCache::Default;
                }
            }
        }
        Op::File(op) => {
            let mut outputs = BTreeSet::new();
            let most = op.actions.len() as u32;
            for (number, action) in op.actions.iter_mut().enumerate() {
                action.input = tree(action.input, number);
                action.output = action.output.map(|output| output % most);
                action.output = action.output.filter(|output| outputs.insert(*output));
                action.secondary = match action.kind {
                    FileActionKind::Copy(_) => tree(action.secondary, number),
                    _ => ActionInput::Scratch,
                };
                let owner = match &mut action.kind {
                    FileActionKind::Copy(op) => op.owner.as_mut(),
                    FileActionKind::Mkfile(op) => op.owner.as_mut(),
                    FileActionKind::Mkdir(op) => op.owner.as_mut(),
                    FileActionKind::Rm(_) => None,
                    FileActionKind::Symlink(op) => op.owner.as_mut(),
                };
                for user in owner
                    .into_iter()
                    .flat_map(|owner| owner.user.iter_mut().chain(&mut owner.group))
                {
                    if let UserRef::Name { input, .. } = user {
                        *input = tree(*input, number);
                    }
                }
            }
        }
        Op::Merge(op) => op
            .inputs
            .iter_mut()
            .for_each(|input| *input = index(*input)),
        Op::Diff(op) => (op.lower, op.upper) = (index(op.lower), index(op.upper)),
        Op::Build(op) => {
            op.builder = index(op.builder);
            op.inputs = std::mem::take(&mut op.inputs)
                .into_iter()
                .filter_map(|(name, input)| Some((name, index(Some(input))?)))
                .collect();
        }
        Op::Passthrough(op) => {
            op.outputs = op
                .outputs
                .iter()
                .filter_map(|input| index(Some(*input)))
                .collect()
        }
    }
    op
}

fn config() -> BoxedStrategy<ImageConfig> {
    let list = || option::of(texts());
    let check = (texts(), any::<[i64; 5]>()).prop_map(|(test, numbers)| Healthcheck {
        test,
        interval_ns: numbers[0],
        timeout_ns: numbers[1],
        start_period_ns: numbers[2],
        start_interval_ns: numbers[3],
        retries: numbers[4],
    });
    let run = (
        (text(), texts(), texts(), list(), list(), texts(), text()),
        (
            map(),
            text(),
            list(),
            option::of(check),
            any::<bool>(),
            texts(),
            map(),
        ),
    )
        .prop_map(
            |((user, exposed_ports, env, entrypoint, cmd, volumes, working_dir), rest)| {
                let (labels, stop_signal, shell, healthcheck, args_escaped, on_build, extra) = rest;
                Config {
                    user,
                    exposed_ports,
                    env,
                    entrypoint,
                    cmd,
                    volumes,
                    working_dir,
                    labels,
                    stop_signal,
                    shell,
                    healthcheck,
                    args_escaped,
                    on_build,
                    extra,
                }
            },
        );
    let history = (option::of(text()), text(), text(), text(), any::<bool>()).prop_map(
        |(created, created_by, author, comment, empty_layer)| History {
            created,
            created_by,
            author,
            comment,
            empty_layer,
        },
    );
    (
        (
            option::of(text()),
            text(),
            text(),
            text(),
            text(),
            texts(),
            text(),
        ),
        run,
        vec(history, 0..3),
        map(),
    )
        .prop_map(
            |(
                (created, author, architecture, os, os_version, os_features, variant),
                config,
                history,
                extra,
            )| ImageConfig {
                created,
                author,
                architecture,
                os,
                os_version,
                os_features,
                variant,
                config,
                history,
                extra,
            },
        )
        .boxed()
}

fn display() -> BoxedStrategy<Display> {
    let group = (text(), text(), any::<bool>()).prop_map(|(id, name, weak)| ProgressGroup {
        id,
        name,
        weak,
    });
    let limits =
        (any::<[i64; 5]>(), text(), text()).prop_map(|(numbers, cpuset_cpus, cpuset_mems)| {
            ResourceLimits {
                memory: numbers[0],
                memory_swap: numbers[1],
                cpu_shares: numbers[2],
                cpu_period: numbers[3],
                cpu_quota: numbers[4],
                cpuset_cpus,
                cpuset_mems,
            }
        });
    let range = (1..9u32, 0..9u32).prop_map(|(start, lines)| SourceRange {
        source: 0,
        start_line: start,
        end_line: start + lines,
    });
    (
        (
            text(),
            text(),
            vec(range, 0..3),
            option::of(group),
            any::<bool>(),
            limits,
        ),
        (
            btree_set(text(), 0..3),
            map(),
            option::of(any::<bool>()),
            btree_map(text(), any::<bool>(), 0..3),
            texts(),
        ),
    )
        .prop_map(
            |((name, stage, ranges, progress_group, ignore_cache, limits), rest)| {
                let (include, description, export_cache, caps, worker_constraints) = rest;
                Display {
                    name,
                    stage,
                    ranges,
                    progress_group,
                    ignore_cache,
                    limits,
                    include,
                    description,
                    export_cache,
                    caps,
                    worker_constraints,
                }
            },
        )
        .boxed()
}

/// A valid plan with pins, results and display data.
pub(crate) fn plan() -> BoxedStrategy<Plan> {
    use prop::sample::Index;
    let node = (
        op(),
        vec((any::<Index>(), any::<Index>()), 0..4),
        option::of(platform()),
        option::of(display()),
        any::<bool>(),
    );
    let result = (
        text(),
        option::of((any::<Index>(), any::<Index>())),
        option::of(config()),
        text(),
        map(),
    );
    (vec(node, 0..8), vec(result, 0..3), text())
        .prop_map(|(nodes, results, foreign)| {
            let mut plan = Plan {
                sources: vec![("Dockerfile".to_owned(), "FROM x\n".to_owned())],
                ..Plan::default()
            };
            let pick = |graph: &Graph, node: Index, output: Index| {
                let ids: Vec<NodeId> = graph
                    .ids()
                    .filter(|&id| !graph.outputs(id).is_empty())
                    .collect();
                let node = *ids.get(node.index(ids.len().max(1)))?;
                let outputs = graph.outputs(node);
                Some(Input {
                    node,
                    output: outputs[output.index(outputs.len())],
                })
            };
            for (op, picks, platform, display, pinned) in nodes {
                let mut inputs = Vec::new();
                for (node, output) in picks {
                    let input =
                        pick(&plan.graph, node, output).filter(|_| !matches!(op, Op::Source(_)));
                    inputs.extend(input.filter(|input| !inputs.contains(input)));
                }
                let op = fit(op, inputs.len() as u32);
                let platform = platform.filter(|_| op.has_platform());
                let pin = match &op {
                    Op::Source(SourceOp::Image(_)) => {
                        Some(Pin::Manifest(format!("sha256:{}", "0a".repeat(32))))
                    }
                    Op::Source(SourceOp::Git(git)) if git.checksum.is_none() => {
                        Some(Pin::Commit("1b".repeat(20)))
                    }
                    _ => None,
                };
                let id = plan
                    .graph
                    .add(Node {
                        op,
                        inputs,
                        platform,
                    })
                    .expect("the op was made to fit");
                if let Some(pin) = pin.filter(|_| pinned) {
                    plan.pins.insert(id, pin);
                }
                if let Some(display) = display {
                    plan.annotate(id, display);
                }
            }
            for (name, output, config, predicate, metadata) in results {
                let output = output.and_then(|(node, output)| pick(&plan.graph, node, output));
                let attestations = output
                    .into_iter()
                    .map(|input| (predicate.clone(), input))
                    .collect();
                plan.results.insert(
                    name,
                    ResultEntry {
                        output,
                        config,
                        attestations,
                        metadata,
                    },
                );
            }
            if let Some(id) = plan.graph.ids().next() {
                plan.foreign.insert(foreign, id);
            }
            plan
        })
        .boxed()
}
