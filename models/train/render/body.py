"""Body shapes and skin: a random person of any build, age and skin tone."""

import numpy as np

from .assets import linear

DETAIL_FOLDERS = ("armslegs", "torso", "hip", "stomach", "head", "neck", "nose", "chin", "cheek", "mouth",
                  "buttocks", "pelvis", "ears", "forehead")
AGES = (({"young": 1.0}, 0.55), ({"young": 0.5, "old": 0.5}, 0.22), ({"old": 1.0}, 0.13), ({"young": 0.35, "child": 0.65}, 0.10))

# Skin from the lightest to the darkest in sRGB; tones are drawn evenly along this line.
TONES = np.array([(0.96, 0.83, 0.76), (0.90, 0.72, 0.60), (0.79, 0.59, 0.46), (0.63, 0.44, 0.33),
                  (0.45, 0.30, 0.22), (0.27, 0.18, 0.14)])
TONE_GROUPS = 6


class Shape:
    """Rest-pose vertices (decimetres) and joints of one person, with the record that the test set is grouped by.

    `tone` in [0, 1] sets the skin, from light to dark, and leaves every other draw as it is.
    """

    def __init__(self, assets, rng, tone=None):
        self.sex = ("male", "female")[rng.integers(2)]
        ancestry = ("african", "asian", "caucasian")[rng.integers(3)]
        ages = AGES[rng.choice(len(AGES), p=[share for _, share in AGES])][0]
        self.age = max(ages, key=ages.get)
        self.vertices = assets.base.vertices.copy()
        muscle, weight = mixture(rng, (2, 1, 1)), mixture(rng, (1.5, 1, 1))
        self.build = ("average", "heavy", "slim")[int(np.argmax(weight))]
        tall = ("maxheight", "minheight")[rng.integers(2)]
        tallness = min(abs(rng.normal(0, 0.4)), 1)
        add = lambda name, share: assets.targets.add(self.vertices, "macrodetails/" + name, share)
        for age, share in ages.items():
            add(f"{ancestry}-{self.sex}-{age}", share)
            for m, muscle_share in zip(("average", "max", "min"), muscle):
                for w, weight_share in zip(("average", "max", "min"), weight):
                    add(f"universal-{self.sex}-{age}-{m}muscle-{w}weight", share * muscle_share * weight_share)
            add(f"height/{self.sex}-{age}-averagemuscle-averageweight-{tall}", share * tallness)
        for name in rng.choice(detail_names(assets), rng.integers(2, 12), replace=False):
            assets.targets.add(self.vertices, str(name), rng.uniform(0, 0.5))
        self.joints = np.stack([self.vertices[j].mean(0) for j in assets.rig.heads])
        drawn = float(rng.uniform())
        self.tone = drawn if tone is None else tone
        # How many paintings fit hangs on the tone; the number is drawn as for the drawn tone, so that the scene's
        # other draws stay the same whatever tone is asked for.
        number = int(rng.integers(len(paintings(assets, self, drawn))))
        self.skin = skin_texture(assets, rng, self, number)

    @property
    def tone_group(self):
        return min(int(self.tone * TONE_GROUPS), TONE_GROUPS - 1)


def mixture(rng, alpha):
    """Dirichlet weights with the small ones dropped, so that extremes occur."""
    share = rng.dirichlet(alpha)
    share[share < 0.15] = 0
    return share / share.sum()


def detail_names(assets):
    if not hasattr(assets, "detail_names"):
        assets.detail_names = [n for n in assets.targets.names if n.split("/")[0] in DETAIL_FOLDERS]
    return assets.detail_names


def paintings(assets, shape, tone):
    """Names of the skin paintings that fit sex, age and tone; all where none does."""
    fitting = [k for k in assets.skins
               if ("_female" in k) == (shape.sex == "female") and k.startswith("old") == (shape.age == "old")
               and ("dark" in k) == (tone > 0.55)]
    return fitting or list(assets.skins)


def skin_texture(assets, rng, shape, number):
    """A skin painting of the sex and age, moved to the wanted tone; linear RGBA (1, H, W, 4)."""
    names = paintings(assets, shape, shape.tone)
    texture = assets.skins[names[number % len(names)]]
    position = shape.tone * (len(TONES) - 1)
    k = min(int(position), len(TONES) - 2)
    target = linear(TONES[k] + (position - k) * (TONES[k + 1] - TONES[k]))
    colour = linear(texture[..., :3])
    middle = np.median(colour.reshape(-1, 3), 0)
    colour = colour * (target / middle) * rng.uniform(0.92, 1.08, 3)
    return np.concatenate([np.clip(colour, 0, 1), texture[..., 3:]], -1)[None].astype(np.float32)
