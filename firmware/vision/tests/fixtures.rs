//! The shipped network through this crate gives what onnxruntime gave when it was exported.

mod common;

use std::collections::HashSet;

use common::{buffer, fixtures, parser, picture, planes, student_for};
use proto::taxonomy::Part;

/// Largest difference, relative to the expected tensor's largest value.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    got.iter().zip(want).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

/// Outputs that leave an integer convolution may differ by one step where a float rounding falls on the border;
/// counts how many do.
fn off_by_more_than_one_step(got: &[f32], want: &[f32], step: f32) -> (usize, usize) {
    let far = got.iter().zip(want).filter(|(a, b)| (*a - *b).abs() > 1.01 * step).count();
    let off = got.iter().zip(want).filter(|(a, b)| (*a - *b).abs() > 0.01 * step).count();
    (far, off)
}

#[test]
fn trunk_and_head_agree_with_onnxruntime() {
    let fixtures = fixtures();
    assert!(!fixtures.fixture.is_empty() && !fixtures.onnxruntime.is_empty());
    let sizes: HashSet<[usize; 2]> = fixtures.fixture.iter().map(|fixture| fixture.size).collect();
    assert!(sizes.len() > 1, "upright and on its side");
    for fixture in &fixtures.fixture {
        let (width, height, rgb) = picture(&fixture.picture);
        let mut student = student_for(width, height);
        assert_eq!([student.grid().height, student.grid().width], fixture.size);
        let pixels = planes(width, height, &rgb);
        let trunk = student.run_trunk(&pixels).expect("runs");
        let wanted =
            [&fixture.queries, &fixture.memory_a, &fixture.memory_b, &fixture.mask_features];
        for (got, tensor) in trunk.iter().zip(wanted) {
            let want = tensor.values();
            match tensor.scale {
                Some(step) => {
                    let (far, off) = off_by_more_than_one_step(got, &want, step);
                    println!("{}: {off} of {} off by one step", tensor.file, got.len());
                    assert!(
                        far == 0 && off * 1000 <= got.len(),
                        "{}: {far} far, {off} off",
                        tensor.file
                    );
                }
                None => {
                    let wrong = difference(got, &want);
                    println!("{}: {wrong:.1e} relative", tensor.file);
                    assert!(wrong < 1e-3, "{}: {wrong}", tensor.file);
                }
            }
        }
        let raw = student.run(&pixels).expect("runs");
        for (got, tensor) in
            [(&raw.class_logits, &fixture.class_logits), (&raw.mask_logits, &fixture.mask_logits)]
        {
            let wrong = difference(got, &tensor.values());
            println!("{}: {wrong:.1e} relative", tensor.file);
            assert!(wrong < 2e-3, "{}: {wrong}", tensor.file);
        }
    }
}

/// tract's int8 kernel for AMX reads past its operands; see `kernels.rs`.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_engine_keeps_from_a_kernel_that_reads_too_far() {
    let _student = common::student();
    let chosen = tract_linalg::isa::native();
    assert!(!chosen.has(tract_linalg::isa::Isa::X86_64AmxInt8), "{chosen:?}");
}

#[test]
fn a_mirror_image_looked_at_both_ways_shows_the_same_people_with_left_and_right_exchanged() {
    let (width, height, rgb) = picture("scene0.png");
    let turned: Vec<u8> = rgb
        .chunks_exact(3 * width as usize)
        .flat_map(|line| line.chunks_exact(3).rev().flatten().copied())
        .collect();
    let mut parser = parser(false);
    let [there, back] = [rgb, turned].map(|rgb| {
        let picture = buffer(width, height, &rgb);
        parser.parse_both_ways(&picture.frame()).expect("parses").parts.clone()
    });
    let other_side = |&part: &u8| Part::from_index(part).expect("a part").other_side().index();
    let there =
        there.chunks_exact(width as usize).flat_map(|line| line.iter().rev().map(other_side));
    let pairs: Vec<(u8, u8)> = there.zip(back).filter(|pair| *pair != (0, 0)).collect();
    let differ = pairs.iter().filter(|(a, b)| a != b).count();
    // Sums of the same numbers in another order may round the other way.
    assert!(pairs.len() > 1000 && 500 * differ < pairs.len(), "{differ} of {}", pairs.len());
}
