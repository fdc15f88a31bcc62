//! Container images of one statically linked program each, written as OCI layouts in a tar file.
//! Absent: a registry, base images, compression, and every tool that builds images.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Context, Result};
use crate::tools::NodeTools;

/// The image of a model server; its source is in `tools/modelserver/server`.
pub const MODEL_SERVER: &str = "pointsman.test/model-server:1";
/// The image of the process that holds a pod's namespaces.
pub(super) const PAUSE: &str = "pointsman.test/pause:1";

/// A program that is an image's only content.
pub(super) struct Image<'a> {
    name: &'static str,
    program: &'a Path,
}

/// Every image of the node.
pub(super) fn all(tools: &NodeTools) -> [Image<'_>; 2] {
    [
        Image {
            name: PAUSE,
            program: &tools.pause,
        },
        Image {
            name: MODEL_SERVER,
            program: &tools.model_server,
        },
    ]
}

impl Image<'_> {
    /// Writes the layout and returns its path.
    pub(super) fn write(&self, folder: &Path) -> Result<PathBuf> {
        let program =
            fs::read(self.program).context(format_args!("reading {}", self.program.display()))?;
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let path = folder.join(format!("{name}.tar"));
        fs::write(&path, self.layout(&name, &program))
            .context(format_args!("writing {}", path.display()))?;
        Ok(path)
    }

    fn layout(&self, program_name: &str, program: &[u8]) -> Vec<u8> {
        let layer = Blob::new(
            "application/vnd.oci.image.layer.v1.tar",
            tar(&[(program_name, 0o755, program)]),
        );
        let configuration = Blob::of_json(
            "application/vnd.oci.image.config.v1+json",
            &configuration(program_name, &layer),
        );
        let manifest = json!({"schemaVersion": 2, "config": configuration.descriptor(), "layers": [layer.descriptor()]});
        let manifest = Blob::of_json("application/vnd.oci.image.manifest.v1+json", &manifest);
        let mut named = manifest.descriptor();
        named["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [named]}).to_string();
        let blobs = [&layer, &configuration, &manifest];
        let paths = blobs.map(|blob| format!("blobs/sha256/{}", blob.digest));
        let mut files = vec![
            (
                "oci-layout",
                0o644,
                br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice(),
            ),
            ("index.json", 0o644, index.as_bytes()),
        ];
        files.extend(
            paths
                .iter()
                .zip(blobs)
                .map(|(path, blob)| (path.as_str(), 0o644, blob.content.as_slice())),
        );
        tar(&files)
    }
}

fn configuration(program_name: &str, layer: &Blob) -> Value {
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [format!("/{program_name}")]},
        // The layer is not compressed, so this is its digest.
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
    })
}

/// Something that is known by the digest of its content.
struct Blob {
    media_type: &'static str,
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        let digest = Sha256::digest(&content)
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        Self {
            media_type,
            digest,
            content,
        }
    }

    fn of_json(media_type: &'static str, content: &Value) -> Self {
        Self::new(media_type, content.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": format!("sha256:{}", self.digest), "size": self.content.len()})
    }
}

const BLOCK: usize = 512;

/// A tar file of `(path, mode, content)`, in the format that POSIX calls ustar.
fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (path, mode, content) in files {
        archive.extend(header(path, *mode, content.len()));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn header(path: &str, mode: u32, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The checksum is computed with spaces in its own field.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_file_is_read_by_the_machines_own_tar() {
        let path = std::env::temp_dir().join(format!("pointsman-image-{}.tar", std::process::id()));
        fs::write(
            &path,
            tar(&[
                ("program", 0o755, b"#!/bin/sh\n"),
                ("folder/text", 0o644, b"words"),
            ]),
        )
        .unwrap();
        let output = std::process::Command::new("tar")
            .arg("-tvf")
            .arg(&path)
            .output()
            .unwrap();
        fs::remove_file(&path).unwrap();
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            listing.lines().next().unwrap().starts_with("-rwxr-xr-x"),
            "{listing}"
        );
        assert!(listing.contains("folder/text"), "{listing}");
    }
}
