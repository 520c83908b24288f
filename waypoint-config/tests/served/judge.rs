// SPDX-License-Identifier: Apache-2.0
//! A real Envoy that says whether it would take the resources: they become one static bootstrap, with routes and endpoints put where the discovery of them
//! would have been.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use envoy_types::pb::{
    envoy::{
        config::{
            bootstrap::v3::{
                Bootstrap, LayeredRuntime, RuntimeLayer, bootstrap::StaticResources, runtime_layer::LayerSpecifier,
            },
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType},
            },
            core::v3::{Node, TypedExtensionConfig},
            endpoint::v3::ClusterLoadAssignment,
            listener::v3::{Listener, filter::ConfigType},
            route::v3::RouteConfiguration,
        },
        extensions::{
            bootstrap::internal_listener::v3::InternalListener,
            filters::network::http_connection_manager::v3::{
                HttpConnectionManager, http_connection_manager::RouteSpecifier,
            },
        },
    },
    google::protobuf::{Struct, Value, value},
};
use mesh_proto::discovery::unpack;
use prost::{Message, Name};
use waypoint_config::{
    envoy::{Profile, Resources, Secrets, Type, pack},
    view::routes::MAX_PROGRAM_SIZE,
};

/// Whether there is an Envoy; said once.
pub(crate) fn envoy() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let named = env::var_os("ENVOY_BIN").map(PathBuf::from);
        let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("tools");
        let unpacked =
            fs::read_dir(tools).into_iter().flatten().filter_map(Result::ok).map(|one| one.path().join("envoy"));
        let found = named.into_iter().chain(unpacked).find(|path| path.is_file());
        if found.is_none() {
            eprintln!("no Envoy: set ENVOY_BIN, or start the tests of mesh-tests once; what needs it is skipped");
            assert!(env::var_os("CI").is_none(), "no Envoy, and CI counts a skip as a failure");
        }
        found
    });
    found.as_deref()
}

/// A profile whose files exist.
pub(crate) fn profile() -> Profile {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let secret = |name: &str, text: &str| {
        let path = folder.join(format!("{name}.yaml"));
        // At once: several tests write it.
        let draft = folder.join(format!("{name}.{:?}.tmp", std::thread::current().id()));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &path).unwrap();
        path.display().to_string().into()
    };
    let secrets = Secrets::Files {
        certificate: secret("certificate", "resources: []\n"),
        roots: secret("roots", "resources: []\n"),
    };
    Profile { secrets, ..Profile::default() }
}

/// One bootstrap with everything in it.
pub(crate) fn bootstrap(resources: &Resources) -> Bootstrap {
    let mut listeners: Vec<Listener> = all(resources, Type::Listener);
    let mut clusters: Vec<Cluster> = all(resources, Type::Cluster);
    for chain in listeners.iter_mut().flat_map(|listener| &mut listener.filter_chains) {
        for filter in &mut chain.filters {
            let Some(ConfigType::TypedConfig(config)) = &mut filter.config_type else { continue };
            if let Ok(mut manager) = unpack::<HttpConnectionManager>(config) {
                inline_routes(&mut manager, resources);
                *config = pack(&manager);
            }
        }
    }
    clusters.iter_mut().for_each(|cluster| inline_endpoints(cluster, resources));
    let internal = TypedExtensionConfig {
        name: "envoy.bootstrap.internal_listener".into(),
        typed_config: Some(pack(&InternalListener::default())),
    };
    Bootstrap {
        node: Some(Node { id: "judge".into(), cluster: "judge".into(), ..Default::default() }),
        static_resources: Some(StaticResources { listeners, clusters, ..Default::default() }),
        bootstrap_extensions: vec![internal],
        layered_runtime: Some(runtime()),
        ..Default::default()
    }
}

/// As large expressions as the launcher's bootstrap allows.
fn runtime() -> LayeredRuntime {
    let size = Value { kind: Some(value::Kind::NumberValue(f64::from(MAX_PROGRAM_SIZE))) };
    let fields = [("re2.max_program_size.error_level".to_owned(), size)].into();
    let layer =
        RuntimeLayer { name: "limits".into(), layer_specifier: Some(LayerSpecifier::StaticLayer(Struct { fields })) };
    LayeredRuntime { layers: vec![layer] }
}

fn all<M: Message + Name + Default>(resources: &Resources, kind: Type) -> Vec<M> {
    resources.all(kind).map(|resource| unpack(&resource.body).unwrap()).collect()
}

fn inline_routes(manager: &mut HttpConnectionManager, resources: &Resources) {
    let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier else { return };
    let found = resources.named(Type::Routes, &rds.route_config_name).expect("a chain without its routes");
    let routes: RouteConfiguration = unpack(&found.body).unwrap();
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes));
}

fn inline_endpoints(cluster: &mut Cluster, resources: &Resources) {
    let Some(eds) = cluster.eds_cluster_config.take() else { return };
    let found = resources.named(Type::Endpoints, &eds.service_name).expect("a cluster without its endpoints");
    let mut assignment: ClusterLoadAssignment = unpack(&found.body).unwrap();
    assignment.cluster_name.clone_from(&cluster.name);
    cluster.load_assignment = Some(assignment);
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
}

/// What Envoy says against it; nothing if it would take it.
pub(crate) fn refusal(name: &str, resources: &Resources) -> Option<String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.pb"));
    fs::write(&path, bootstrap(resources).encode_to_vec()).unwrap();
    let output = Command::new(envoy()?)
        .args(["--mode", "validate", "--log-level", "warning", "-c"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let tells = |line: &&str| !line.contains("work-in-progress") && !line.contains("no configured limit");
    let said: Vec<_> = said.lines().filter(tells).collect();
    (!output.status.success()).then(|| said.join("\n"))
}
