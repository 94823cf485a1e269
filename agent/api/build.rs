//! Compiles the protocols in `proto/`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    // Only the ends of the control socket need gRPC; culvert-cni and culvert stay free of it.
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    let mut protos = vec!["proto/fastpath.proto", "proto/agent.proto"];
    if grpc {
        protos.extend([
            "proto/deviceplugin_v1beta1.proto",
            "proto/pluginregistration.proto",
            "proto/podresources_v1.proto",
        ]);
    }
    tonic_prost_build::configure()
        .disable_comments(["."])
        .build_client(grpc)
        .build_server(grpc)
        .compile_protos(&protos, &["proto"])?;
    Ok(())
}
