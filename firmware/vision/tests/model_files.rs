//! Every model that must not run is refused with a message that names the file and the reason.

mod common;

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use vision::{EngineOptions, ModelError, ModelFiles, Student};

fn refusal(files: &ModelFiles<'_>) -> String {
    match Student::load(files, &EngineOptions::default()) {
        Ok(_) => panic!("the model was accepted"),
        Err(error) => error.to_string(),
    }
}

/// The manifest with the digest that the changed trunk really has.
fn signed(manifest: &str, old: &[u8], new: &[u8]) -> String {
    let hex =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let changed = manifest.replace(&hex(old), &hex(new));
    assert_ne!(changed, manifest);
    changed
}

#[test]
fn one_changed_byte_is_noticed() {
    let mut files = common::files();
    let last = files.trunk.len() - 1;
    files.trunk.to_mut()[last] ^= 1;
    let message = refusal(&files);
    assert!(message.contains("trunk.onnx") && message.contains("SHA-256"), "{message}");
}

#[test]
fn a_truncated_graph_is_refused_even_with_a_fitting_digest() {
    let files = common::files();
    let half = files.trunk[..files.trunk.len() / 2].to_vec();
    let message = refusal(&ModelFiles {
        manifest: signed(&files.manifest, &files.trunk, &half).into(),
        trunk: half.into(),
        head: files.head,
    });
    assert!(message.contains("trunk.onnx"), "{message}");
}

#[test]
fn an_operator_outside_the_list_is_named() {
    let files = common::files();
    // Same length, so the file stays well formed.
    let bytes = replace(&files.head, b"LayerNormalization", b"LayerNormalizatiox");
    let message = refusal(&ModelFiles {
        manifest: signed(&files.manifest, &files.head, &bytes).into(),
        trunk: files.trunk,
        head: bytes.into(),
    });
    assert!(message.contains("head.onnx") && message.contains("LayerNormalizatiox"), "{message}");
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at + from.len() <= out.len() {
        if &out[at..at + from.len()] == from {
            out[at..at + from.len()].copy_from_slice(to);
        }
        at += 1;
    }
    assert_ne!(out, bytes);
    out
}

#[test]
fn a_manifest_of_another_shape_is_refused() {
    let files = common::files();
    let edit = |from: &str, to: &str| ModelFiles {
        manifest: Cow::Owned(files.manifest.replacen(from, to, 1)),
        ..files.clone()
    };
    for (from, to, part) in [
        ("format_version = 1", "format_version = 2", "format_version is 2"),
        ("name = \"face\"", "name = \"mask\"", "class 2 is not face"),
        ("height = 256", "height = 250", "multiples of 4"),
        ("height = 256", "height = 288", "trunk.onnx"),
        ("[input]", "[inputs]", "manifest.toml"),
        ("padding = 114", "padding = 1140", "manifest.toml"),
        ("shape = [1, 28, 18]", "shape = [2, 28, 18]", "class_logits [1, Q, 18]"),
    ] {
        let message = refusal(&edit(from, to));
        assert!(message.contains(part), "{from} to {to}: {message}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = ModelFiles::read(&common::folder().join("nowhere")).expect_err("nothing is there");
    assert!(
        matches!(error, ModelError::Read { .. }) && error.to_string().contains("manifest.toml")
    );
}

#[test]
fn a_head_can_be_rebuilt_and_swapped_while_running() {
    let mut student = common::student();
    let fixtures = common::fixtures();
    let (width, height, rgb) = common::picture(&fixtures.fixture[0].picture);
    let pixels = common::planes(width, height, &rgb);
    let before = student.run(&pixels).expect("runs").class_logits.clone();
    let builder = student.head_builder();
    let parameters = student.head_parameters().clone();
    let same = std::thread::spawn(move || builder.build(&parameters))
        .join()
        .expect("no panic")
        .expect("builds");
    student.swap_head(same).expect("swaps");
    assert_eq!(
        student.run(&pixels).expect("runs").class_logits,
        before,
        "same numbers, same answer"
    );

    let parameters = student.head_parameters();
    let mut values = parameters.values().to_vec();
    let mut at = 0;
    for info in parameters.layout() {
        if info.trainable {
            values[at..at + info.len()].iter_mut().for_each(|v| *v *= 0.9);
        }
        at += info.len();
    }
    let changed = parameters.with_values(values).expect("same layout");
    let head = student.head_builder().build(&changed).expect("builds");
    student.swap_head(head).expect("swaps");
    assert_ne!(student.run(&pixels).expect("runs").class_logits, before);
    assert_eq!(student.head_parameters(), &changed);
}

#[test]
fn head_parameters_that_do_not_fit_are_refused() {
    let student = common::student();
    let parameters = student.head_parameters();
    let values = || parameters.values().to_vec();
    assert!(parameters.with_values(values()[1..].to_vec()).is_err());
    let mut bad = values();
    bad[0] = f32::NAN;
    assert!(parameters.with_values(bad).expect_err("not finite").to_string().contains("finite"));
    let mut bad = values();
    if let Some(last) = parameters.layout().last().filter(|info| !info.trainable) {
        let at = bad.len() - last.len();
        bad[at] += 1.0;
        assert!(
            parameters.with_values(bad).expect_err("a constant").to_string().contains(&last.name)
        );
    }
}

#[test]
fn the_input_takes_the_shape_of_the_picture() {
    let manifest = common::student().manifest().clone();
    let grid = |width, height| {
        let grid = manifest.grid_for(width, height);
        (grid.height, grid.width)
    };
    for (picture, wanted) in [
        ((480, 640), (256, 192)),
        ((640, 480), (192, 256)),
        ((1920, 1080), (160, 288)),
        ((1080, 1920), (288, 160)),
        ((500, 500), (256, 192)),
        ((1, 8192), (288, 160)),
    ] {
        assert_eq!(grid(picture.0, picture.1), wanted, "{picture:?}");
    }
    let text = std::fs::read_to_string(common::folder().join("manifest.toml")).expect("readable");
    let line = text.lines().find(|line| line.starts_with("other_sizes")).expect("it is there");
    let alone = vision::Manifest::parse(&text.replace(line, "")).expect("an older model");
    assert_eq!(alone.grid_for(640, 480), alone.grid(), "a model that serves one size");
    for (sizes, says) in [("[200, 192]", "200"), ("[256, 224]", "more pixels")] {
        let odd = text.replace(line, &format!("other_sizes = [{sizes}]"));
        let error = vision::Manifest::parse(&odd).expect_err(says);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn every_size_runs_and_shares_what_is_trained() {
    let own = common::student();
    let trained: Vec<f32> =
        own.head_parameters().trainable().iter().map(|value| value * 0.9).collect();
    for (width, height) in [(256, 192), (160, 288), (288, 160)] {
        let mut student = common::student_for(width, height);
        let grid = student.grid();
        assert_eq!((grid.width as u32, grid.height as u32), (width, height));
        let parameters = student.head_parameters();
        assert_eq!(parameters.trainable(), own.head_parameters().trainable());
        assert_ne!(
            parameters.values(),
            own.head_parameters().values(),
            "positions follow the size"
        );
        let changed = parameters.with_trainable(&trained).expect("the same numbers");
        let head = student.head_builder().build(&changed).expect("builds");
        let grey = vec![114; 3 * grid.area()];
        let before = student.run(&grey).expect("runs").class_logits.clone();
        student.swap_head(head).expect("of this size");
        let raw = student.run(&grey).expect("runs");
        assert_ne!(raw.class_logits, before);
        assert_eq!(raw.mask_size.area() * 16, grid.area());
        assert_eq!(raw.mask_logits.len(), raw.queries * raw.mask_size.area());
        let other = own.head_builder().build(own.head_parameters()).expect("builds");
        let refused = [
            student.swap_head(other).expect_err("of another size"),
            student.head_builder().build(own.head_parameters()).expect_err("of another size"),
        ];
        assert!(refused.iter().all(|error| error.to_string().contains("input size")));
    }
    let error = own.head_parameters().with_trainable(&trained[1..]).expect_err("one is missing");
    assert!(error.to_string().contains("trainable"), "{error}");
}
