//! Broken input by the million for the parsers that read what others wrote: `fuzz TARGET|all SECONDS [SEED]`.
//!
//! A mutation fuzzer for stable Rust: valid seeds, bytes flipped, cut, doubled, spliced and set to edge values. A panic
//! ends it with the input saved as `target/fuzz-TARGET.bin`; no panic and no input that takes a second is what is proved.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use frame::FrameBuffer;
use frame::jpeg::JpegDecoder;

/// What no input may take.
const SLOW: Duration = Duration::from_secs(1);

/// Name, seeds, and what is done with an input.
struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    run: fn(&[u8]),
}

impl Target {
    /// Keeps an input that it failed on, to look at, in the source tree's `target`; gives the file's place.
    fn keep(&self, input: &[u8]) -> String {
        let folder = root().join("target");
        let path = folder.join(format!("fuzz-{}.bin", self.name));
        std::fs::create_dir_all(folder).expect("a folder that git ignores");
        std::fs::write(&path, input).expect("the input is kept");
        path.display().to_string()
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(wanted), Some(seconds)) =
        (arguments.first(), arguments.get(1).and_then(|s| s.parse().ok()))
    else {
        eprintln!("usage: fuzz jpeg|mjpeg|y4m|settings|all SECONDS [SEED]");
        return ExitCode::from(2);
    };
    let seed = arguments.get(2).and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut found = false;
    let targets: Vec<Target> =
        targets().into_iter().filter(|t| wanted == "all" || t.name == wanted).collect();
    if targets.is_empty() {
        eprintln!("there is no target {wanted}");
        return ExitCode::from(2);
    }
    for target in targets {
        found |= !fuzz(&target, Duration::from_secs(seconds), seed);
    }
    if found { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn targets() -> Vec<Target> {
    let read = |path: &str| std::fs::read(root().join(path)).expect("a file of this repository");
    let clip = read("firmware/mirror/assets/demo.mjpeg");
    let first = camera::mjpeg::next_picture(&clip).expect("the clip has pictures");
    let boards = ["pc", "rpi4", "rpi5", "rk3588", "virt"].map(|b| read(&format!("board/{b}.toml")));
    let y4m: [&[u8]; 2] = [
        b"YUV4MPEG2 W640 H480 F30:1 Ip A1:1 C420jpeg XYSCSS=420JPEG",
        b"YUV4MPEG2 W2 H2 F25:0 C444 I?",
    ];
    vec![
        Target { name: "jpeg", seeds: vec![clip[first.clone()].to_vec()], run: jpeg },
        Target { name: "mjpeg", seeds: vec![clip[..3 * first.end].to_vec()], run: mjpeg },
        Target { name: "y4m", seeds: y4m.map(|l| l.to_vec()).to_vec(), run: y4m_header },
        Target {
            name: "settings",
            seeds: boards
                .into_iter()
                .chain([read("firmware/settings/src/defaults.toml")])
                .collect(),
            run: settings_file,
        },
    ]
}

fn jpeg(input: &[u8]) {
    let _ = JpegDecoder::new().decode(input, None, &mut FrameBuffer::new());
}

fn mjpeg(mut input: &[u8]) {
    while let Some(range) = camera::mjpeg::next_picture(input) {
        assert!(range.start < range.end && range.end <= input.len());
        input = &input[range.end..];
    }
}

fn y4m_header(input: &[u8]) {
    let Ok(header) = camera::y4m::Header::parse(&String::from_utf8_lossy(input)) else { return };
    let layout = header.layout().expect("checked by the parser");
    // Small ones are run through, too.
    if header.picture_bytes() < 1 << 16 {
        let planar = vec![1; header.picture_bytes()];
        header.interleave(&planar, &mut vec![0; layout.byte_len()]);
    }
}

fn settings_file(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let _ = settings::Board::parse("fuzz", &text);
    if let Ok(layers) = settings::Layers::defaults().and_then(|layers| layers.file("fuzz", &text)) {
        let _ = layers.finish();
    }
}

/// Whether the target survived.
fn fuzz(target: &Target, patience: Duration, seed: u64) -> bool {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (began, mut runs, mut slowest) = (Instant::now(), 0u64, Duration::ZERO);
    while began.elapsed() < patience {
        let input = mutate(&target.seeds, &mut random);
        let run = target.run;
        let time = || {
            let started = Instant::now();
            catch_unwind(|| run(&input)).map(|()| started.elapsed())
        };
        // A busy machine makes any input slow once; a slow input is slow again.
        let took = time().and_then(|first| {
            if first > SLOW { time().map(|again| again.min(first)) } else { Ok(first) }
        });
        let Ok(took) = took else {
            println!("{}: PANIC after {runs} inputs, see {}", target.name, target.keep(&input));
            return false;
        };
        slowest = slowest.max(took);
        runs += 1;
        if took > SLOW {
            let (name, path) = (target.name, target.keep(&input));
            println!("{name}: {:.1} s for one input, see {path}", took.as_secs_f64());
            return false;
        }
    }
    println!(
        "{}: {runs} inputs, the slowest took {:.1} ms",
        target.name,
        slowest.as_secs_f64() * 1e3
    );
    true
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }
}

fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(6) {
        let at = random.below(input.len());
        match random.below(7) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = [0, 0xFF, 0x7F, 0x80, b'"', b'\n', b'-', b'9'][random.below(8)],
            2 => input.truncate(at.max(1)),
            3 => {
                let end = (at + 1 + random.below(16)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = random.below(input.len());
                input.splice(to..to, piece);
            }
            4 => {
                let end = (at + 1 + random.below(16)).min(input.len());
                input.drain(at..end);
            }
            5 => input.insert(at, random.below(256) as u8),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let end = (from + 1 + random.below(64)).min(other.len());
                let piece = other[from..end].to_vec();
                input.splice(at..at, piece);
            }
        }
        if input.is_empty() {
            input.push(0);
        }
    }
    input
}
