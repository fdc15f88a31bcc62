//! Container images of one program each and the libraries that it loads, written as OCI layouts in a tar file.
//! Absent: a registry, base images, compression, and every tool that builds images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};
use crate::tools::NodeTools;

/// The image of a model server; its source is in `tools/modelserver/server`.
pub const MODEL_SERVER: &str = "pointsman.test/model-server:1";
/// The image of the process that holds a pod's namespaces.
pub(super) const PAUSE: &str = "pointsman.test/pause:1";

/// A program, and the user that it runs as; an image has nothing else but libraries.
pub struct Image<'a> {
    /// The name that pods give.
    pub name: &'a str,
    /// The program; it becomes the entry point, in the root folder.
    pub program: &'a Path,
    /// The id of user and group.
    pub user: u32,
}

/// Every image of the node.
pub(super) fn all(tools: &NodeTools) -> [Image<'_>; 2] {
    [(PAUSE, &tools.pause), (MODEL_SERVER, &tools.model_server)].map(|(name, program)| Image {
        name,
        program,
        user: 0,
    })
}

impl Image<'_> {
    /// Writes the layout and returns its path.
    pub(super) fn write(&self, folder: &Path) -> Result<PathBuf> {
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let path = folder.join(format!("{name}.tar"));
        fs::write(&path, self.layout(&name)?)
            .context(format_args!("writing {}", path.display()))?;
        Ok(path)
    }

    fn layout(&self, program_name: &str) -> Result<Vec<u8>> {
        let mut files = vec![(program_name.to_owned(), read(self.program)?)];
        for library in libraries(self.program)? {
            let inside = library.display().to_string();
            files.push((inside.trim_start_matches('/').to_owned(), read(&library)?));
        }
        let files: Vec<_> = files
            .iter()
            .map(|(path, content)| (path.as_str(), 0o755, content.as_slice()))
            .collect();
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", tar(&files));
        let configuration = Blob::of_json(
            "application/vnd.oci.image.config.v1+json",
            &self.configuration(program_name, &layer),
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
        Ok(tar(&files))
    }

    fn configuration(&self, program_name: &str, layer: &Blob) -> Value {
        let architecture = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        let user = format!("{0}:{0}", self.user);
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": [format!("/{program_name}")], "User": user},
            // The layer is not compressed, so this is its digest.
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(format_args!("reading {}", path.display()))
}

/// The dynamic libraries of a program, the loader included, as this machine resolves them; none if it is linked statically.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let what = format!("listing the libraries of {}", program.display());
    let output = Command::new("ldd").arg(program).output().context(&what)?;
    let (listing, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if error.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    if !output.status.success() || listing.contains("not found") {
        return Err(Error::new(what, format_args!("{listing}\n{error}")));
    }
    let words = listing.split_whitespace();
    Ok(words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
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
