"""Clinical sentences in English and Spanish on which a converted tokenizer is tried.

Written for the purpose; no patient stands behind them. They hold what tokenizers cut differently:
accents and ñ, ¿ and ¡, numbers with units, decimals with point and comma, drug names, abbreviations,
Greek letters, line breaks, tabs, double spaces, contractions, capitals. None begins with a space:
SentencePiece puts one before any text, and a second could not be told from it.
"""

SENTENCES: tuple[str, ...] = (
    "A 67-year-old man with type 2 diabetes and chronic kidney disease comes to the emergency"
    " department with two hours of crushing chest pain that radiates to his left arm.",
    "His blood pressure is 158/94 mmHg, his heart rate 112 beats per minute, and his oxygen"
    " saturation 91% on room air.",
    "Troponin T rose from 14 ng/L to 1,280 ng/L within 3 h; the ECG shows ST elevation in V1-V4.",
    "She was started on piperacillin/tazobactam 4.5 g IV every 6 hours, then switched to oral"
    " amoxicillin-clavulanate 875/125 mg.",
    "The patient doesn't take metoprolol because it's made her dizzy; she'd rather not try again.",
    "LABS:\nNa 131 mmol/L\nK 5.9 mmol/L\nCreatinine 3.2 mg/dL (baseline 1.1)\nHCO3- 16 mmol/L",
    "Assessment:  acute-on-chronic heart failure.  Plan:  furosemide 40 mg IV, then reassess.",
    "MRI of the brain revealed multiple T2-hyperintense periventricular lesions, consistent with"
    " demyelination.",
    "Which of the following is the most appropriate next step in management?",
    "(A) Reassurance\n(B) CT angiography\n(C) Intravenous thrombolysis\n(D) Lumbar puncture",
    "Family history: mother died of breast cancer at 41 (BRCA1 c.68_69delAG); father, 70, has gout.",
    "Temp 38.7 °C, RR 28/min, pH 7.28, pCO2 55 mmHg, lactate 4.1 mmol/L.",
    "The β-blocker was withheld, and the α1-antagonist reduced by 50 µg/day.",
    "A G2P1 woman at 34+5 weeks' gestation presents with painless vaginal bleeding.",
    "Pneumococcal vaccination (PCV20) was given on 2024-03-15; no adverse reaction was observed.",
    "Dyspnoea, orthopnoea and paroxysmal nocturnal dyspnoea had worsened over the last ten days.",
    "Warfarin was stopped 5 days before surgery; INR on admission: 1.3 (target < 1.5).",
    "Histology: poorly differentiated adenocarcinoma, HER2 3+, ER-negative, Ki-67 of 60-70%.",
    "He denies fever, chills, night sweats, or weight loss...but his wife reports otherwise!",
    "Follow-up:\n\n\t1. Repeat colonoscopy in 3 years\n\t2. Vitamin B12, 1000 mcg IM monthly\n",
    "Mujer de 54 años con antecedentes de hipertensión arterial y dislipemia que acude a urgencias"
    " por disnea de tres días de evolución.",
    "¿Cuál es el diagnóstico más probable en este niño de 8 años con fiebre y exantema?",
    "¡Atención! El paciente es alérgico a la penicilina y a los antiinflamatorios no esteroideos.",
    "Se inició tratamiento con enoxaparina 1 mg/kg cada 12 horas por vía subcutánea.",
    "La glucemia en ayunas fue de 126 mg/dl y la hemoglobina glucosilada (HbA1c) del 7,8 %.",
    "En la exploración destaca una hepatomegalia de 4 cm, ictericia conjuntival y flapping.",
    "Señale la respuesta incorrecta respecto a la neumonía adquirida en la comunidad:",
    "1. Ácido acetilsalicílico 100 mg/24 h.\n2. Atorvastatina 80 mg/24 h.\n3. Bisoprolol 2,5 mg/24 h.",
    "El electrocardiograma mostró fibrilación auricular con respuesta ventricular a 140 lpm.",
    "La paciente refiere cefalea pulsátil, náuseas, fotofobia y sonofobia desde hace 48 horas.",
    "Radiografía de tórax:  infiltrado alveolar en lóbulo inferior derecho.  No derrame pleural.",
    "Varón de 23 años, fumador de 10 cigarrillos/día, que presenta dolor pleurítico súbito.",
    "Diagnóstico: síndrome de Guillain-Barré (polineuropatía desmielinizante inflamatoria aguda).",
    "El recién nacido pesó 2.850 g, con un test de Apgar de 9/10 y pH de cordón de 7,31.",
    "No se palpan adenopatías; abdomen blando, depresible, sin signos de irritación peritoneal.",
    "Ante una hiponatremia de 118 mEq/l con convulsiones, ¿qué tratamiento está indicado?",
    "Según la ESC, el ticagrelor y el prasugrel son preferibles al clopidogrel en el SCACEST.",
    "Cirugía: colecistectomía laparoscópica sin incidencias; alta a las 24 h con paracetamol.",
    "La biopsia confirmó una enfermedad celíaca (Marsh 3b) y se pautó dieta sin gluten.",
    "Evolución:\n\tDía 1: afebril, TA 110/70 mmHg.\n\tDía 3: leucocitos 9,4 × 10⁹/l, PCR 12 mg/l.\n\n"
    "Plan: «continuar igual» y revisar el lunes.",
)
"""Twenty in English, twenty in Spanish."""
