"""The classes of the network, in the order of `firmware/proto/src/taxonomy.rs`."""

PARTS = (
    "background", "hair", "face", "torso",
    "upper_arm_left", "upper_arm_right", "lower_arm_left", "lower_arm_right",
    "hand_left", "hand_right", "upper_leg_left", "upper_leg_right",
    "lower_leg_left", "lower_leg_right", "foot_left", "foot_right",
)
INDEX = {name: index for index, name in enumerate(PARTS)}

# PASCAL-Person-Part: background, head, torso, upper arms, lower arms, upper legs, lower legs.
PPP = ("background", "head", "torso", "upper_arms", "lower_arms", "upper_legs", "lower_legs")
TO_PPP = (0, 1, 1, 2, 3, 3, 4, 4, 4, 4, 5, 5, 6, 6, 6, 6)

# Exchanges left and right; used when a picture is flipped.
FLIPPED = (0, 1, 2, 3, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)

# Colours for people who look at label maps.
COLOURS = (
    (0, 0, 0), (150, 90, 40), (255, 205, 150), (235, 65, 65),
    (255, 150, 40), (250, 215, 60), (190, 220, 60), (110, 200, 80),
    (255, 105, 180), (205, 120, 240), (60, 130, 245), (60, 200, 240),
    (45, 80, 190), (40, 165, 165), (130, 80, 220), (170, 140, 250),
)

# Grey of letterbox bars, in the renders as on the device.
PADDING = 114
